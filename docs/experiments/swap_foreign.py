"""Where foreign mixers pay: each budget's answer with `--alternatives` beside that without, fine-tuned alike.

    python docs/experiments/swap_foreign.py --rows foreign.csv --parents swin,mambavision --seeds 2

Parents are narrow specs that are trained as those of `swap_choices.py` are, on CIFAR-10; budgets are shares of the
multiply-adds, of the latency of one image on this machine, and of the memory of a training step. Each answer is
fine-tuned with its parent for a fifth of the parent's training and measured on the test images once. A row is written
as soon as it is known; the same command goes on where it was stopped.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from swap_choices import (
    MICRO,
    TUNED,
    KeptOption,
    RowsOption,
    SeedsOption,
    TableOption,
    small,
    spec_of,
    top1_of,
    trained,
    trained_parent,
)

import blockforge as bf
from blockforge.cli import script
from blockforge.compiler import Architecture
from blockforge.files import cut_torn_line
from blockforge.search.budget import measured_latency
from blockforge.search.equal_cost.kept_rows import append_row, read_rows
from blockforge.train import Data

PAGE = """
define:
  separable: {params: {k: 5}, body: [{op: dwconv, kernel_size: $k}, gelu, {op: linear, dim: $out}]}
blocks:
  dw: [{op: dwconv, kernel_size: {$choice: [3, 7]}}]
  sep: [separable]
  pool: [pooling]
  lin: [{op: linear_attention, num_heads: 2}]
"""
WAYS = ("own", "foreign")


@dataclass(frozen=True)
class Row:
    """An answer. `way` is own or foreign: without other blocks, or with them; `budget` 60% of `cost`.

    Attributes:
        macs, ms, memory: of it; latency on this machine, and bytes of a training step of 64 images.
        others, changed: how many of the blocks that changed are foreign, and how many there are.
        expected, kl: as the scores say, and measured before fine-tuning; top1 of the test images after it.
        seconds: CPU time of all of its way's scores and blocks, with those of the other budgets.
    """

    parent: str
    seed: int
    cost: str
    budget: int
    way: str
    macs: int
    ms: float
    memory: int
    others: int
    changed: int
    expected: float
    kl: float
    top1: float
    seconds: float

    @property
    def key(self) -> tuple[str, int, str, int, str]:
        return self.parent, self.seed, self.cost, self.budget, self.way


def limits(arch: Architecture, cost: str, share: int) -> str:
    """A budget as it is written."""
    if cost == "macs":
        return f"{share}%"
    if cost == "latency":
        return f"{measured_latency(arch, None) * share / 100:.3f}ms"
    return f"{arch.training_memory(64).total * share / 1e8:.4f}MB:train,batch=64"


def rows_of(
    name: str, seed: int, model: Any, data: Data, wanted: list[tuple[str, int, str]], steps: int
) -> Iterator[Row]:
    """The rows of one trained network; what a way is chosen by is found once for all its budgets."""
    budgets = {(cost, share): limits(model.arch, cost, share) for cost, share, _ in wanted}
    for way in WAYS:
        own = [(cost, share) for cost, share, other in wanted if other == way]
        if not own:
            continue
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.yaml")
            page.write_text(PAGE, encoding="utf-8")
            given = page if way == "foreign" else None
            found = bf.swap(
                model, data, [budgets[key] for key in own], images=256, alternatives=given, steps=steps, seed=seed
            )
        seconds = time.process_time() - started
        for (cost, share), answer in zip(own, found.answers, strict=True):
            others = sum(a.mark != "" for a in answer.chosen)
            trained(answer.model, data, {**MICRO, **TUNED}, seed=seed, teacher=model)
            arch = answer.model.arch
            yield Row(
                name, seed, cost, share, way, arch.macs, round(measured_latency(arch, None), 3),
                arch.training_memory(64).total, others, len(answer.chosen), round(answer.expected, 6),
                round(answer.score.kl, 6), top1_of(answer.model, data), round(seconds, 1),
            )  # fmt: skip


def swap_foreign(
    rows: RowsOption,
    kept: KeptOption = Path("runs/parents"),
    parents: Annotated[str, typer.Option(metavar="NAME,...", help="Specs of specs/narrow.")] = "swin,mambavision",
    seeds: SeedsOption = 1,
    budgets: Annotated[
        str, typer.Option(help="Cost and share, of macs, latency and memory.")
    ] = "macs:60,macs:45,macs:30,latency:70,latency:50,memory:80",
    share: Annotated[int, typer.Option(help="Of a spec's multiply-adds, those of the parent.")] = 50,
    steps: Annotated[int, typer.Option(help="Of each foreign block alone.")] = 80,
    images: Annotated[int, typer.Option(help="To train on.")] = 25600,
    only_table: TableOption = False,
) -> None:
    """Compare answers with and without foreign blocks. Stops and goes on at any time.

    \b
    Examples:
      python docs/experiments/swap_foreign.py --rows foreign.csv --seeds 2
      python docs/experiments/swap_foreign.py --rows foreign.csv --table
    """
    torch.set_num_threads(1)
    cut_torn_line(rows)
    known = {row.key for row in read_rows(rows, Row)}
    asked = [(cost, int(text)) for cost, _, text in (b.partition(":") for b in budgets.split(","))]
    data = None if only_table else small("cifar10", images, 2000, 10000)
    for seed in range(seeds):
        for name in parents.split(","):
            wanted = [(*b, way) for b in asked for way in WAYS if (name, seed, *b, way) not in known]
            if data is None or not wanted:
                continue
            folder = kept / f"{name}-{seed}"
            model = trained_parent(spec_of(name, 3, share), data, seed, folder)
            print(f"{name}, seed {seed}: {top1_of(model, data):.2f}", flush=True)
            for row in rows_of(name, seed, model, data, wanted, steps):
                append_row(rows, row)
                print(f"{name}, seed {seed}, {row.cost} {row.budget}%, {row.way}: {row.top1:.2f}", flush=True)
    print("\n".join(table(read_rows(rows, Row))))


def table(rows: list[Row]) -> Iterator[str]:
    """The rows in Markdown: what foreign blocks add, a line a parent and budget."""
    known = {row.key: row for row in rows}
    yield "| parent | budget | foreign, of those changed | KL, without | with | top-1, without | with | lead |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, cost, budget in dict.fromkeys((row.parent, row.cost, row.budget) for row in rows):
        seeds = sorted({row.seed for row in rows if row.parent == name})
        keys = [[(name, seed, cost, budget, way) for way in WAYS] for seed in seeds]
        pairs = [(known[own], known[other]) for own, other in keys if own in known and other in known]
        if not pairs:
            continue
        counts = ", ".join(f"{other.others} of {other.changed}" for _, other in pairs)
        kls = (statistics.fmean(pair[i].kl for pair in pairs) for i in (0, 1))
        tops = [statistics.fmean(pair[i].top1 for pair in pairs) for i in (0, 1)]
        leads = ", ".join(f"{other.top1 - own.top1:+.2f}" for own, other in pairs)
        yield (
            f"| {name} | {budget}% of {cost} | {counts} | {' | '.join(f'{kl:.4f}' for kl in kls)} "
            f"| {' | '.join(f'{top1:.2f}' for top1 in tops)} | {leads} |"
        )


if __name__ == "__main__":
    sys.exit(script(swap_foreign))
