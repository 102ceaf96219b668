"""`blockforge eject`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import DeployOption, JsonOption, SetOption, SpecArgument, console, print_json
from blockforge.files import write_atomically


def eject(
    spec: SpecArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.py", help="Where to write; by default NAME.py here.")
    ] = None,
    deploy: DeployOption = False,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Write a network as one file of plain PyTorch that needs nothing of blockforge.

    The file holds the blocks that the network uses and no others. Its class Backbone has the same
    state_dict keys as the built model, and it is run beside the model before the file appears.

    \b
    Examples:
      blockforge eject smt_t -o model.py
      blockforge eject vmamba_tiny_s1l8 --set num_classes=10 -o model.py
      blockforge eject repvgg_a0 --deploy
    """
    import blockforge as bf
    from blockforge.eject import Ejected, EjectError, write_ejected

    arch = bf.compile(spec, overrides)
    file = output if output is not None else Path(f"{arch.name}.py")
    if file.suffix != ".py" and (file.is_file() or not file.exists()):
        raise EjectError(f"{file} is no name of a Python file, which it will be\n  hint: -o {file.with_suffix('.py')}")
    if file.stem in {*sys.stdlib_module_names, "torch"}:
        hint = f"-o {file.with_stem(f'{file.stem}_net')}"
        raise EjectError(
            f"{file.name} would stand for the module '{file.stem}' to all that runs beside it\n  hint: {hint}"
        )
    done: list[Ejected] = []
    form = arch.deployed if deploy else arch
    write_atomically(file, lambda path: done.append(write_ejected(bf.build(form), path)))
    ejected = done[0]
    if json:
        print_json(
            {
                "name": arch.name,
                "hash": arch.hash,
                "form": form.form,
                "file": str(file),
                "lines": ejected.lines,
                "error": ejected.error,
            }
        )
        return
    out = console()
    same = "bit for bit the model's" if ejected.error == 0 else "the model's but for rounding"
    out.print(f"{ejected.lines} lines; its outputs are {same}, its state_dict keys are the same")
    out.print(f"written to {file}; run it: python {file}", soft_wrap=True)
