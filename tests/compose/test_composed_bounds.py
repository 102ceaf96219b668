"""Composed blocks that ask for far too much: one error, without writing them out."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from networks import linear, network

import blockforge as bf

BYTES = 32 * 2**20


def doubling(last: Any, number: int = 40) -> dict[str, Any]:
    """Definitions that each name the next one twice."""
    found = {f"d{i}": [f"d{i + 1}", f"d{i + 1}"] for i in range(number)}
    return {**found, f"d{number}": last}


def around(key: str) -> dict[str, Any]:
    found: dict[str, Any] = {f"d{i}": {"op": "residual", "of": f"d{i + 1}", key: f"d{i + 1}"} for i in range(40)}
    return {**found, "d40": "gelu"}


def repeated(times: int, levels: int, of: Any, **more: Any) -> Any:
    for _ in range(levels):
        of = {"op": "repeat", "times": times, "of": of, **more}
    return of


PARAMETERS = {
    "d40": {"params": {"a": "gelu"}, "body": "$a"},
    **{f"d{i}": {"params": {"a": "gelu"}, "body": {"op": f"d{i + 1}", "a": ["$a", "$a"]}} for i in range(40)},
}
ALIKE = [{"dim": dim, "depth": 999, "layers": "b"} for dim in (16, 32)]
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "definitions": (network("d0", define=doubling("gelu")), "64 deep"),
    "wide definitions": (network("d0", define=doubling("gelu", 15)), "2000 parts"),
    "nothing": (network("d0", define=doubling("identity", 20)), "reads at most 20000 ops"),
    "absent": (network("d0", define=doubling({"op": "gelu", "when": False}, 20)), "reads at most 20000 ops"),
    "parameters": (network("d0", define=PARAMETERS), "64 deep"),
    "skips": (network("d0", define=around("skip")), "64 deep"),
    "norms": (network("d0", define=around("norm")), "64 deep"),
    "a norm": (network({"op": "gelu", "norm": "d0"}, define=doubling("gelu")), "2000 values"),
    "an activation": (network({"op": ["mlp", {"op": "mlp", "act": "d0"}]}, define=doubling("gelu")), "2000 values"),
    "a join": (network({"op": {"op": "parallel", "join": "d0", "of": []}}, define=doubling("sum")), "2000 values"),
    "a stem": (network("gelu", stem=["d0"], define=doubling("gelu", 15)), "2000 parts"),
    "a head": (network("gelu", head=["d0", "logits"], define=doubling("gelu", 15)), "2000 parts"),
    "repeats": (network({"op": repeated(4096, 3, "gelu")}), "2000 parts"),
    "repeats of nothing": (network({"op": repeated(4096, 3, "none")}), "reads at most 20000 ops"),
    "shared repeats": (network({"op": repeated(4096, 3, linear(), share=True)}), "2000 parts"),
    "members": (network({"op": {"op": "parallel", "of": ["gelu"] * 3000}}), "2000 parts"),
    "layers": (network({"op": ["gelu", "relu"] * 900}, stages=ALIKE), "the network has more than 50000 parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_once(name: str) -> None:
    tree, message = HOSTILE[name]
    with pytest.raises(bf.SpecError, match=message) as caught:
        bf.compile(tree)
    assert len(caught.value.diagnostics) == 1
    assert len(str(caught.value)) < 3000


def test_it_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(bf.SpecError, match="parts"):
            bf.compile(HOSTILE["shared repeats"][0])
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
