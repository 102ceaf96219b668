"""`blockforge bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from blockforge.cli._output import (
    SPEC_HELP,
    BatchesOption,
    JsonOption,
    SetOption,
    SpecsArgument,
    ThreadsOption,
    TrainStepOption,
    console,
    print_json,
)
from blockforge.figures import format_of, write_figure

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure blockforge on this machine.")


@bench.command("compile")
def bench_compile(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=SPEC_HELP)] = "smt_b",
    runs: Annotated[int, typer.Option(min=3, max=10_000, help="Repetitions of each measurement.")] = 30,
    json: JsonOption = False,
) -> None:
    """Time the compiler, beside building the module and counting with torch's FlopCounterMode.

    \b
    Examples:
      blockforge bench compile
      blockforge bench compile smt_l --runs 100
    """
    from blockforge.measure.compile import measure, table

    timings = measure(spec, runs)
    if json:
        print_json([t.as_dict() for t in timings])
    else:
        console().print(table(timings, spec))


@bench.command("models")
def bench_models(
    specs: SpecsArgument,
    against: Annotated[
        str,
        typer.Option(metavar="FILE.py[:NAME]", help="A file whose NAME() makes the other model; NAME: the spec's."),
    ],
    batch: BatchesOption = "1,8",
    size: Annotated[int, typer.Option(help="Side of the image.")] = 224,
    runs: Annotated[int, typer.Option(min=3, max=1000, help="Rounds; each runs both sides once.")] = 15,
    threads: ThreadsOption = 0,
    train: TrainStepOption = False,
    json: JsonOption = False,
) -> None:
    """Time our models beside another implementation of them, in turn in one process, and weigh their memory.

    The file is imported and run: name only one that you trust. Packages that it imports and that are not
    installed are replaced by stand-ins. Where its checkpoint layout is known, both sides have equal weights.

    \b
    Examples:
      blockforge bench models smt_t smt_b --against SMT/models/smt.py
      blockforge bench models my_net.yaml --against theirs.py:make --batch 1 --train
    """
    import dataclasses

    from blockforge.measure.models import compare_all, comparisons_table

    batches = _counts(batch, "batch sizes", "--batch 1,8")
    comparisons = compare_all(specs, against, batches, size=size, runs=runs, threads=threads, train=train)
    if json:
        print_json([dataclasses.asdict(c) for c in comparisons])
    else:
        console().print(comparisons_table(comparisons, train))


@bench.command("memory")
def bench_memory(
    specs: SpecsArgument,
    size: Annotated[str, typer.Option(help="Sides of the images, separated by commas.")] = "224",
    batch: BatchesOption = "1,4",
    threads: ThreadsOption = 0,
    json: JsonOption = False,
) -> None:
    """Hold the predicted peak of inference against what torch allocates on the CPU, one network after the other.

    \b
    Examples:
      blockforge bench memory deit_s
      blockforge bench memory smt_t my_net.yaml --size 224,384 --batch 1,4,16 --json
    """
    import torch

    from blockforge.measure import peaks

    sizes, batches = _counts(size, "sizes", "--size 224,384"), _counts(batch, "batch sizes", "--batch 1,8")
    if threads:
        torch.set_num_threads(threads)
    measured = []
    for spec in specs:
        for peak in peaks.measure(spec, sizes, batches):
            print(f"{peak.name}, {peak.size} px, batch {peak.batch}: {peak.ratio:.3f}", file=sys.stderr, flush=True)
            measured.append(peak)
    if json:
        print_json([peak.as_dict() for peak in measured])
    else:
        console().print(peaks.table(measured))


@bench.command("kernels")
def bench_kernels(
    op: Annotated[str | None, typer.Option(metavar="NAME", help="One operator; absent: all.")] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Forward and backward instead of forward.")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="The scan of maps from 56x56 to 448x448: is its cost linear?")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --scaling: draw it here (.png, .svg, .pdf).")
    ] = None,
    runs: Annotated[int, typer.Option(min=3, max=1000, help="Rounds; each runs every side once.")] = 15,
    threads: ThreadsOption = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: JsonOption = False,
) -> None:
    """Time the operators' backends beside what is usually done instead, in turn in one process.

    \b
    Examples:
      blockforge bench kernels
      blockforge bench kernels --op selective_scan --backward --threads 2
      blockforge bench kernels --scaling --out scaling.png
    """
    import dataclasses

    import torch

    from blockforge.errors import BlockforgeError

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise BlockforgeError(f"there is no device '{device}' here\n  hint: blockforge doctor shows what there is")
    if out is not None and not scaling:
        raise BlockforgeError("--out draws what --scaling measures\n  hint: add --scaling")
    if scaling:
        from blockforge.measure import scaling as growth

        if out is not None:
            format_of(out)  # else a name that cannot be drawn to is told when all is measured

        points = growth.measure(backward=backward, runs=runs, threads=threads, device=device)
        if out is not None:
            write_figure(out, growth.plot(points))
        shown: Any = growth.table(points, backward, device, threads)
        timings: list[Any] = points
    else:
        from blockforge.measure import kernels

        timings = list(kernels.measure(op, backward=backward, runs=runs, threads=threads, device=device))
        shown = kernels.table(timings, backward, device, threads)
    if json:
        print_json([dataclasses.asdict(t) for t in timings])
    else:
        console().print(shown)


@bench.command("compare")
def bench_compare(
    specs: SpecsArgument,
    runs: Annotated[Path, typer.Option(metavar="FILE.csv", help="The table; what it has is not trained again.")],
    budget: Annotated[str, typer.Option(metavar="LIMITS", help="What each network costs, as in 4MMACs.")],
    fit: Annotated[float, typer.Option(metavar="SHARE", help="Each network's least share of the budget.")] = 0.95,
    data: Annotated[str, typer.Option(help="What to train on.")] = "mnist5k",
    recipe: Annotated[str, typer.Option(help="A recipe's name or file.")] = "micro",
    epochs: Annotated[int, typer.Option(min=1, help="Of each training, in place of the recipe's.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each network.")] = 3,
    test: Annotated[
        bool, typer.Option("--test", help="Measure on the test images, not on those to choose by.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each trains on one thread.")] = 1,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Scale the widths of networks to one budget and train them alike. Stops and goes on at any time.

    \b
    Examples:
      blockforge bench compare runs/a/best/rank1_*.yaml specs/narrow/*.yaml --budget 4MMACs --runs runs.csv
      blockforge bench compare smt_t vssd_tiny --budget 20MMACs --set input.size=64 --runs runs.csv
      blockforge bench compare a.yaml b.yaml --budget 2MMACs --data cifar10 --seeds 16 --test --runs runs.csv
    """
    import dataclasses

    from blockforge.search.equal_cost import compare, trainings

    networks = compare.fitted(specs, budget, fit, overrides or ())
    training = trainings.train_all(list(networks.values()), runs, data, recipe, epochs, seeds, workers, test)
    for run, done, total in training:
        progress = f"{done}/{total}: {run.name}, seed {run.seed}: {run.top1:.2f}% in {run.seconds:.1f} s"
        print(progress, file=sys.stderr, flush=True)
    images = trainings.measured_on(data, test)
    rows = compare.compare(networks, trainings.runs_of(runs, images, recipe, epochs), seeds)
    if json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    title = f"{fit:.0%} to 100% of {budget}, {recipe} on {images}, {epochs} epochs, {seeds} seeds"
    console().print(compare.table(rows, title))
    console().print(compare.summary(rows))


@bench.command("fidelity")
def bench_fidelity(
    space: Annotated[str | None, typer.Option(help="A search space, to draw networks from; absent: tiny.")] = None,
    data: Annotated[str | None, typer.Option(help="What to train on; absent: mnist5k.")] = None,
    networks: Annotated[int, typer.Option(min=3, help="Networks to draw.")] = 48,
    budget: Annotated[
        str | None, typer.Option(metavar="LIMITS", help="What each network costs; absent: 1MMACs.")
    ] = None,
    fit: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Each network's least share of the budget; absent: 0.95.")
    ] = None,
    rungs: Annotated[str, typer.Option(metavar="N,...", help="Lengths of the trainings, in steps.")] = (
        "20,40,80,160,320"
    ),
    repeats: Annotated[int, typer.Option(min=1, max=99, help="Trainings of each of the better third.")] = 3,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file; absent: micro.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.json", help="The record, and beside it the trainings; absent: fidelity.json."
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.jsonl", help="Train nothing: the figures of a packaged table, or of a file."),
    ] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and train nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Train networks of equal cost at a ladder of budgets: what is a short training worth, and how many seeds?

    Each training is kept in FILE.jsonl as soon as it has ended. The same command goes on, also after Ctrl-C or with
    more networks; what is not given is as it was. Several may run at once, and share the work.

    \b
    Examples:
      blockforge bench fidelity --data fashion --networks 48 --out runs/fidelity.json
      blockforge bench fidelity --space my_space.yaml --budget 20MMACs --rungs 50,200,800 --dry-run
      blockforge bench fidelity --table tiny-fashion
    """
    from blockforge.search.fidelity.command import Wanted, reread, run

    lengths = tuple(sorted(set(_counts(rungs, "steps", "--rungs 20,40,80"))))
    wanted = Wanted(space, data, budget, fit, recipe, tuple(overrides or ()), networks, lengths, repeats)
    if table is not None:
        findings, signal = reread(table, out)
    else:
        findings, signal = run(wanted, out or Path("fidelity.json"), dry_run)
    if findings is not None:
        from blockforge.search.fidelity.measured import summary, text_table

        if json:
            print_json(findings.fidelity.model_dump(mode="json"))
        else:
            console().print(text_table(findings))
            console().print(summary(findings))
    if signal is not None:
        raise typer.Exit(128 + signal)


@bench.command("replay")
def bench_replay(
    table: Annotated[
        str, typer.Argument(metavar="NAME|FILE.jsonl", help="A packaged table of trainings, or one of bench fidelity.")
    ] = "tiny-fashion",
    searches: Annotated[int, typer.Option(min=2, max=1000, help="Of each kind, with seeds of their own.")] = 20,
    screen: Annotated[int, typer.Option(min=2, max=1000, help="Proposals of which a screen chooses.")] = 8,
    json: JsonOption = False,
) -> None:
    """Replay searches on a table of real trainings: what a screen and a first rung are worth, and false claims.

    Nothing is trained. It takes minutes: of each search every proposal is made.

    \b
    Examples:
      blockforge bench replay
      blockforge bench replay runs/fidelity.jsonl --searches 50
    """
    from blockforge.search.fidelity.benchmark import benchmark
    from blockforge.search.replay.command import replay
    from blockforge.search.screen.predictor import check_installed

    check_installed()
    replayed = replay(benchmark(table), searches, screen, lambda line: print(line, file=sys.stderr, flush=True))
    if json:
        print_json(replayed.as_dict())
    else:
        console().print(replayed.report())


def _counts(text: str, what: str, hint: str) -> list[int]:
    """Whole numbers above 0, separated by commas. Raises: BlockforgeError."""
    from blockforge.errors import BlockforgeError
    from blockforge.units import count_of

    counts = [count_of(part) or 0 for part in text.split(",")]
    if not all(counts):
        raise BlockforgeError(f"'{text}' is not a list of {what}\n  hint: {hint}")
    return counts
