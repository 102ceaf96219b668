"""`blockforge bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from blockforge.cli._output import JsonOption, console, print_json

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure blockforge on this machine.")


@bench.command("compile")
def bench_compile(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A zoo name or a YAML file.")] = "smt_b",
    runs: Annotated[int, typer.Option(min=3, max=10_000, help="Repetitions of each measurement.")] = 30,
    json: JsonOption = False,
) -> None:
    """Time the compiler, beside building the module and counting with torch's FlopCounterMode.

    \b
    Examples:
      blockforge bench compile
      blockforge bench compile smt_l --runs 100
    """
    from blockforge.bench.compile import measure, table

    timings = measure(spec, runs)
    if json:
        print_json([t.as_dict() for t in timings])
    else:
        console().print(table(timings, spec))


@bench.command("models")
def bench_models(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Zoo names or YAML files.")],
    against: Annotated[
        str,
        typer.Option(metavar="FILE.py[:NAME]", help="A file whose NAME() makes the other model; NAME: the spec's."),
    ],
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8",
    size: Annotated[int, typer.Option(help="Side of the image.")] = 224,
    runs: Annotated[int, typer.Option(min=3, max=1000, help="Rounds; each runs both sides once.")] = 15,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0: as it chooses.")] = 0,
    train: Annotated[bool, typer.Option("--train", help="A training step instead of inference.")] = False,
    json: JsonOption = False,
) -> None:
    """Time our models beside another implementation of them, in turn in one process.

    The file is imported and run: name only one that you trust. Packages that it imports and that are not
    installed are replaced by stand-ins. Where its checkpoint layout is known, both sides have equal weights.

    \b
    Examples:
      blockforge bench models smt_t smt_b --against SMT/models/smt.py
      blockforge bench models my_net.yaml --against theirs.py:make --batch 1 --train
    """
    import dataclasses

    from blockforge.bench.models import compare_all, comparisons_table
    from blockforge.errors import BlockforgeError

    batches = [int(b) if b.strip().isdigit() and int(b) else 0 for b in batch.split(",")]
    if not all(batches):
        raise BlockforgeError(f"'{batch}' is not a list of batch sizes\n  hint: --batch 1,8")
    found = compare_all(specs, against, batches, size=size, runs=runs, threads=threads, train=train)
    if json:
        print_json([dataclasses.asdict(c) for c in found])
    else:
        console().print(comparisons_table(found, train))
