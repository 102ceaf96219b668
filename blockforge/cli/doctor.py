"""`blockforge doctor`."""

from __future__ import annotations

from blockforge.cli._output import JsonOption, console, print_json


def doctor(json: JsonOption = False) -> None:
    """Show versions, devices, and what would run here and why.

    \b
    Examples:
      blockforge doctor
      blockforge doctor --json
    """
    from blockforge.doctor import examine, table

    findings = examine()
    if json:
        print_json([f._asdict() for f in findings])
    else:
        console().print(table(findings))
