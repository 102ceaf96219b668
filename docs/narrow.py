"""Trains the narrow variant of each family with one recipe and several seeds, and prints the table of training.md.

    python docs/narrow.py --out narrow.csv

Runs that the file holds are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from importlib import resources
from pathlib import Path

import torch

import blockforge as bf
from blockforge.train import fit, open_data
from blockforge.units import format_count

COLUMNS = ("spec", "seed", "params", "macs", "top1", "cpu_seconds")
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("narrow.csv"))
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--recipe", default="micro")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data(given.data)
    rows = read(given.out)
    for seed in range(given.seeds):
        for file in sorted(f for f in resources.files("blockforge.specs.narrow").iterdir() if f.name.endswith(".yaml")):
            name = file.name.removesuffix(".yaml")
            if any(r["spec"] == name and r["seed"] == str(seed) for r in rows):
                continue
            started, arch = time.process_time(), bf.compile(str(file))
            top1 = fit(str(file), data, given.recipe, seed=seed).final
            cpu = time.process_time() - started
            values = (name, seed, arch.params, arch.macs, f"{top1:.2f}", f"{cpu:.1f}")
            rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
            write(given.out, rows)
    print(table(rows))


def read(file: Path) -> list[Row]:
    return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []


def write(file: Path, rows: list[Row]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds, best first."""
    lines = []
    for name in {r["spec"] for r in rows}:
        own = [r for r in rows if r["spec"] == name]
        top1 = [float(r["top1"]) for r in own]
        mean, spread = statistics.mean(top1), statistics.stdev(top1) if len(top1) > 1 else 0.0
        size = f"{format_count(int(own[0]['params']))} | {format_count(int(own[0]['macs']))}"
        cpu = statistics.mean(float(r["cpu_seconds"]) for r in own)
        lines.append((-mean, f"| {name} | {size} | {mean:.2f} ± {spread:.2f} | {cpu:.0f} s |"))
    head = "| spec | params | MACs | top-1 | CPU time of a run |\n|---|---|---|---|---|\n"
    return head + "\n".join(line for _, line in sorted(lines))


if __name__ == "__main__":
    main()
