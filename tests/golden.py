"""What must never change unnoticed, worked out: hashes, graphs, costs, names of tensors, candidates of spaces.

`python tests/golden.py` writes it into `data/golden.json`. A value that changes there breaks what users keep:
hashes of studies, names in saved weights, figures in tables. It belongs in CHANGELOG.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import torch

import blockforge as bf
from blockforge.search import list_spaces, load_space
from blockforge.spec import Hole

TESTS = Path(__file__).parent
FILE = TESTS / "data" / "golden.json"
CANDIDATES = 6
"""Of a space: the first value of every hole, then random ones."""


def one_a_family() -> list[str]:
    """The smallest spec of each family in the zoo."""
    with (TESTS / "data" / "zoo.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["variant"] in bf.list_specs()]
    rows.sort(key=lambda row: int(row["params"]))
    return sorted({row["family"]: row["variant"] for row in reversed(rows)}.values())


def small_specs() -> list[str]:
    """The specs under tests/specs: one or more for each block."""
    return [file.name for file in sorted((TESTS / "specs").glob("*.yaml"))]


def architecture(name: str) -> dict[str, Any]:
    """A spec's hash and what its graph says of memory."""
    arch = _compiled(name)
    on_torch = arch.on("torch")
    return {
        "hash": arch.hash,
        "activation_bytes": [arch.activation_bytes, on_torch.activation_bytes],
        "peak_activation_bytes": [a.peak_activation_bytes(batch=4) for a in (arch, on_torch)],
    }


def graph(name: str) -> str:
    """A digest of the graph as `graph.json` says it: nodes in order with their costs, and edges."""
    whole = json.loads(_compiled(name).to_json())
    return _digest([whole["nodes"], whole["edges"]])


def tensors(name: str) -> dict[str, Any]:
    """A digest of the model's tensors: names and shapes in the order in which optimisers number them."""
    with torch.device("meta"):
        model = bf.build(_source(name))
    state = [[key, list(tensor.shape), str(tensor.dtype)] for key, tensor in model.state_dict().items()]
    parameters = [key for key, _ in model.named_parameters()]
    return {"count": len(state), "first": state[0][0], "digest": _digest([state, parameters])}


def candidates(name: str) -> list[str]:
    """Hashes of a space's candidates; of one that is refused, why."""
    return [_candidate(name, seed) for seed in range(CANDIDATES)]


def everything() -> dict[str, Any]:
    """All of it, as it stands in `data/golden.json`."""
    return {
        "architectures": {name: architecture(name) for name in [*bf.list_specs(), *small_specs()]},
        "graphs": {name: graph(name) for name in [*one_a_family(), *small_specs()]},
        "tensors": {name: tensors(name) for name in [*one_a_family(), *small_specs()]},
        "candidates": {name: candidates(name) for name in list_spaces()},
    }


def _candidate(name: str, seed: int) -> str:
    drawn = random.Random(seed)

    def answer(hole: Hole) -> Any:
        if hole.kind == "choice":
            return hole.labels[drawn.randrange(len(hole.labels)) if seed else 0]
        if hole.kind == "int":
            return int(hole.low) + hole.step * (drawn.randint(0, int(hole.high - hole.low) // hole.step) if seed else 0)
        return hole.low + (hole.high - hole.low) * (drawn.randint(0, 8) / 8 if seed else 0)

    try:
        return bf.compile(load_space(name), ask=answer).hash
    except bf.SpecError as e:
        return ", ".join(sorted({d.code for d in e.diagnostics}))


def _source(name: str) -> str | Path:
    return TESTS / "specs" / name if name.endswith(".yaml") else name


@functools.lru_cache
def _compiled(name: str) -> bf.Architecture:
    return bf.compile(_source(name))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _text(sections: dict[str, dict[str, Any]]) -> str:
    """As JSON with a line for each value, so that a change of one shows as one."""
    texts = (
        f'"{section}": {{\n' + ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in values.items()) + "\n}"
        for section, values in sections.items()
    )
    return "{\n" + ",\n".join(texts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(_text(everything()), encoding="utf-8")
