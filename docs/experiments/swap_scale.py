"""What `blockforge swap` costs on networks of full size, with random weights: nothing is scored, so scores are drawn.

    python docs/experiments/swap_scale.py smt_b vssd_base mambavision_b sparx_mamba_b strip_mlp_b swin_base

Prints for each network its slots, what may stand in them (nine thinner forms of a number, nothing, and foreign blocks),
the seconds of a core to find them, those of the slowest choice, pairs counted, of budgets from 90 to 30% of its
multiply-adds, and what it takes to score them on 512 images.
"""

from __future__ import annotations

import argparse
import base64
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import blockforge as bf
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.foreign import foreign_alternatives, foreign_blocks
from blockforge.swapping.pairs import Losses
from blockforge.swapping.scores import Score
from blockforge.swapping.slots import slots_of
from blockforge.swapping.sources import fewer_sources
from blockforge.swapping.ties import ties_of
from blockforge.swapping.widths import narrower_stages

SHARES = tuple(i / 10 for i in range(9, 0, -1))
IMAGES, MOVES = 512, 5120
PAGE = """
define:
  separable: {params: {k: 5}, body: [{op: dwconv, kernel_size: $k}, gelu, {op: linear, dim: $out}]}
blocks:
  dw: [{op: dwconv, kernel_size: {$choice: [3, 5, 7]}}]
  sep: [separable]
  pool: [pooling]
  lin: [{op: linear_attention, num_heads: 4}]
"""


def measured(name: str, page: Path) -> str:
    """A row of the table."""
    arch = bf.compile(written_out(name))
    slots = slots_of(arch)
    started = time.process_time()
    own = [
        *alternatives_of(arch, arch.source, SHARES),
        *fewer_sources(arch, arch.source, SHARES),
        *narrower_stages(arch, arch.source),
    ]
    foreign = list(foreign_alternatives(arch, arch.source, foreign_blocks(page)))
    finding = time.process_time() - started
    found = sorted([*own, *foreign], key=lambda a: (a.slot.stage, a.slot.layer, a.slot.branch))
    draw = random.Random(0)
    scores = [
        1e-3 * draw.random() * a.saved["macs"] ** 0.5 if a.saved["macs"] > 0 else 1e-3 * draw.random() for a in found
    ]
    ties, solving, smallest = ties_of(arch, found), 0.0, 1.0
    losses = Losses.of(found, [_drawn(score, draw) for score in scores])
    for share in range(90, 20, -10):
        least = {"macs": arch.macs * (1 - share / 100)}
        began = time.process_time()
        chosen = losses.best(found, least, ties)
        solving = max(solving, time.process_time() - began)
        if chosen is not None:
            other = bf.compile(edited(arch.source, [found[i] for i in chosen]))
            assert arch.macs - other.macs == ties.saved(found, chosen, "macs")
            smallest = other.macs / arch.macs
    layers = sum(len(stage.layers) for stage in arch.stages)
    passes = (len(found) + 1) * IMAGES
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    slots_and_widths = len(slots) + len({a.slot for a in own if a.slot.branch < 0})
    cells = (name, layers, slots_and_widths, len(found), len(foreign), f"{finding:.0f} s", f"{solving:.2f} s")
    cost = f"{passes:,} x {arch.macs / 1e9:.1f} G = {passes * arch.macs / 1e15:.2f} P"
    return f"| {' | '.join(map(str, cells))} | {smallest:.0%} | {memory:.1f} GiB | {cost} |"


def _drawn(size: float, draw: random.Random) -> Score:
    """A score, and moves of the answers as long as it says, some of them in a direction that all have."""
    numbers = np.array([draw.gauss(0.3, 1.0) for _ in range(MOVES)])
    moves = numbers * (2 * size / float(numbers @ numbers)) ** 0.5
    return Score(size, 0.0, 0.0, None, base64.b64encode(moves.astype("<f2").tobytes()).decode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.yaml")
        page.write_text(PAGE, encoding="utf-8")
        print(
            "| network | layers | slots | alternatives | foreign | found in | solved in | reaches | memory | scoring |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for name in parser.parse_args().names:
            print(measured(name, page), flush=True)


if __name__ == "__main__":
    main()
