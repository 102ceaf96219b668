"""`blockforge check`."""

from __future__ import annotations

import sys

import typer

from blockforge.cli._output import SetOption, SpecsArgument, coloured


def check(
    specs: SpecsArgument,
    overrides: SetOption = None,
) -> None:
    """Check specs without building them, search spaces and files of definitions included.

    All errors of all files are shown. In a search space every option of every hole is tried once, the other
    holes at their first value. Of definitions names and calls are checked; what needs a map is checked where
    a spec uses them.

    \b
    Examples:
      blockforge check my_net.yaml
      blockforge check specs/*.yaml spaces/*.yaml
    """
    from blockforge.compiler.check import check_source

    failed = 0
    for source in specs:
        findings = check_source(source, overrides)
        for diagnostic in findings.diagnostics:
            print(coloured(diagnostic.render()), file=sys.stderr)
        failed += not findings.ok
        print(f"{source}: {findings}")
    if len(specs) > 1:
        print(f"{len(specs) - failed} of {len(specs)} specs are right")
    raise typer.Exit(int(failed > 0))
