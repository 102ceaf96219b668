"""As good and cheaper: `blockforge search --around SEED --cheaper COST` for narrow seeds, and again at twice the steps.

For each seed: the search with its confirmation and its control (random candidates, as many as the search evaluated),
then the winner, the seed and the best random candidate trained for twice as many epochs with fresh seeds, measured on
the test images once. Beside accuracies: multiply-adds, the memory of training, and the time of a step, measured in
turns. Everything goes on where it was stopped, also after `kill -9`: searches in their folders, trainings at their
checkpoints, rows in `rows.csv`.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

import blockforge as bf
from blockforge.cli import script
from blockforge.compiler import Architecture
from blockforge.files import cut_torn_line
from blockforge.search.confirm.statistics import Interval, difference, mean_interval
from blockforge.search.equal_cost.kept_rows import append_row, read_rows
from blockforge.search.result import SearchResult
from blockforge.train import evaluate, fit, open_data

MARGIN = 0.3
FIRST = 30_000
"""The first seed of the longer trainings: no search and no confirmation has seen them."""
_ROUNDS, _STEPS = 5, 3


@dataclass(frozen=True)
class Row:
    """A longer training. `role` is winner, seed or random; top1 of the test images, in percent."""

    seed_spec: str
    role: str
    network: str
    seed: int
    top1: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.seed_spec, self.network, self.seed


def networks(result: SearchResult) -> dict[str, Architecture]:
    """The winner, the seed and the best random candidate of a search that has ended."""
    known = result.confirmed
    if known is None or known.winner is None:
        return {}
    found = {"winner": known.winner.entrant.trial}
    roles = {"start": "seed", "random": "random"}
    found |= {roles[b.entrant.role]: b.entrant.trial for b in known.baselines if b.entrant.role in roles}
    return {role: bf.compile(result.spec(trial)) for role, trial in found.items()}


def train_longer(
    name: str, found: dict[str, Architecture], data: str, epochs: int, seeds: int, out: Path
) -> Iterator[Row]:
    """The rows that are missing: of the winner and the seed in turns, so that what there is can be compared in pairs,
    then of the random candidate."""
    opened, known = open_data(data), {row.key for row in read_rows(out / "rows.csv", Row)}
    numbers = range(FIRST, FIRST + seeds)
    for roles in (("winner", "seed"), ("random",)):
        for seed, role in itertools.product(numbers, roles):
            if (arch := found.get(role)) is None or (name, arch.hash, seed) in known:
                continue
            folder, started = out / "longer" / f"{arch.hash}-{seed}", time.process_time()
            result = fit(
                arch, opened, "micro", epochs=epochs, seed=seed, out=folder,
                overrides={"num_classes": len(opened.classes)},
            )  # fmt: skip
            if result.signal is not None:
                raise SystemExit(128 + result.signal)
            top1 = evaluate(result.model, opened, recipe="micro", split="test").top1
            row = Row(name, role, arch.hash, seed, round(top1, 3), round(time.process_time() - started, 2))
            append_row(out / "rows.csv", row)
            shutil.rmtree(folder)
            yield row


def step_times(found: dict[str, Architecture], batch: int) -> dict[str, float]:
    """Milliseconds of a training step on this machine, the networks in turns; the least of the rounds of each."""
    times: dict[str, list[float]] = {role: [] for role in found}
    for _ in range(_ROUNDS):
        for role, arch in found.items():
            model = bf.build(arch, seed=0).train()
            optimizer = torch.optim.AdamW(model.parameters())
            images = torch.randn(batch, arch.spec.input.channels, *arch.spec.input.size)
            labels = torch.arange(batch) % 10
            for step in range(_STEPS):
                started = time.process_time()
                torch.nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                if step:
                    times[role].append(1000 * (time.process_time() - started))
    return {role: min(found) for role, found in times.items()}


def table(name: str, result: SearchResult, rows: list[Row], epochs: int) -> Iterator[str]:
    """What was found of a seed, in Markdown."""
    found, known = networks(result), result.confirmed
    if not found or known is None or known.winner is None:
        yield f"{name}: the confirmation has not ended"
        return
    times = step_times(found, 64)
    yield "| network | MACs | training memory | ms a step | test | lead | test, twice the steps | lead |"
    yield "|---|---|---|---|---|---|---|---|"
    measured = {"winner": known.winner}
    measured |= {"seed" if b.entrant.role == "start" else b.entrant.role: b for b in known.baselines}
    own = {row.seed: row.top1 for row in rows if row.network == found["winner"].hash}
    for role, arch in found.items():
        there = {row.seed: row.top1 for row in rows if row.network == arch.hash}
        pairs = own.keys() & there.keys() if role != "winner" else ()
        lead = difference(own, there) if len(pairs) > 1 else None
        now, longer = measured[role], mean_interval(list(there.values()))
        yield (
            f"| {name}: {role} | {arch.macs / 1e6:.2f}M | {arch.training_memory(64).total / 2**20:.0f} MiB "
            f"| {times[role]:.0f} | {_mean(now.test)} | {now.lead or ''} | {_mean(longer)} "
            f"| {lead if lead is not None else ''} |"
        )
    shares = {
        "MACs": found["winner"].macs / found["seed"].macs,
        "training memory": found["winner"].training_memory(64).total / found["seed"].training_memory(64).total,
        "time of a step": times["winner"] / times["seed"],
    }
    yield ""
    yield f"{name}: the winner has {', '.join(f'{share:.0%} of the {cost}' for cost, share in shares.items())}."
    yield f"At {known.seeds} seeds: {known.baselines[0].verdict}."
    theirs = {row.seed: row.top1 for row in rows if row.network == found["seed"].hash}
    both = own.keys() & theirs.keys()
    if len(both) > 1:
        longer = difference(own, theirs)
        said = "not worse by more than" if longer.not_inferior(MARGIN) else "not shown to be within"
        yield f"At {epochs} epochs, {len(both)} seeds: {said} {MARGIN:g} points: {longer}."


def _mean(interval: Interval | None) -> str:
    return "" if interval is None or not interval.values else f"{interval.estimate:.2f}"


def cheaper(
    seeds: Annotated[list[str], typer.Argument(metavar="SEED...", help="Specs of specs/narrow.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is kept.")] = Path("runs/cheaper"),
    data: Annotated[str, typer.Option(help="What to train on.")] = "fashion?val=0.1&train=0.38",
    channels: Annotated[int, typer.Option(help="Of the images.")] = 1,
    cost: Annotated[str, typer.Option(help="What is to be saved, as in --cheaper.")] = "macs",
    steps: Annotated[int, typer.Option(help="Of the trainings that rank.")] = 160,
    trials: Annotated[int, typer.Option(help="Candidates, and as many random ones.")] = 16,
    confirm: Annotated[int, typer.Option(help="Finalists.")] = 3,
    repeats: Annotated[int, typer.Option(help="Fresh seeds, of each length.")] = 10,
    epochs: Annotated[int, typer.Option(help="Of the trainings that confirm; then twice as many.")] = 1,
    only_table: Annotated[bool, typer.Option("--table", help="Print what there is.")] = False,
) -> None:
    """Look for networks as good as the seeds at three quarters of their cost. Stops and goes on at any time.

    \b
    Examples:
      python docs/experiments/cheaper.py mambavision smt --out runs/cheaper
      python docs/experiments/cheaper.py vssd smt --data "cifar10?val=0.1&train=0.38" --channels 3 --out runs/cifar10
      python docs/experiments/cheaper.py mambavision --table
    """
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    cut_torn_line(out / "rows.csv")
    for name in seeds:
        if only_table:
            result = bf.search.open_result(out / name)  # type: ignore[attr-defined]
        else:
            result = bf.search(
                around=f"specs/narrow/{name}.yaml", overrides={"input.channels": channels}, cheaper=cost,
                margin=MARGIN, data=data, seed=0, objectives=[f"micro:steps={steps},data={data}", cost],
                trials=trials, confirm=confirm, confirm_seeds=repeats, epochs=epochs, control=True,
                out=out / name, progress=True,
            )  # fmt: skip
            if result.signal is not None:
                raise SystemExit(128 + result.signal)
            for row in train_longer(name, networks(result), data, 2 * epochs, repeats, out):
                print(f"{name}, {row.role}, seed {row.seed}: {row.top1:.2f}, {row.seconds:.1f} s", flush=True)
        rows = [row for row in read_rows(out / "rows.csv", Row) if row.seed_spec == name]
        print("\n".join(table(name, result, rows, 2 * epochs)), flush=True)


if __name__ == "__main__":
    sys.exit(script(cheaper))
