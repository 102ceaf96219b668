"""Composites nested at random: shapes, costs, memory and training are the module's own, and copies give the same."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import network

import blockforge as bf
from blockforge.testing import check_spec
from blockforge.testing.composites import DEFINE, composed_ops

CANNOT_MEET = {"shape", "sizes", "widths", "divisibility", "map-too-small", "limit", "share"}
"""What a strategy cannot know when it draws an op: which map will reach it."""


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """A small network whose block is drawn."""
    branch = {
        "op": [draw(composed_ops())],
        "norm": draw(st.sampled_from(["none", "layer_norm"])),
        "skip": draw(st.sampled_from([True, False, "$(layer == 0)"])),
    }
    return network(branch, define=DEFINE, drop_path=draw(st.sampled_from([0.0, 0.2])), input={"size": [40, 56]})


@settings(max_examples=25)
@given(networks())
def test_a_random_composite_is_what_its_graph_says(tree: dict[str, Any]) -> None:
    try:
        arch = bf.compile(tree)
    except bf.SpecError as e:
        assume(not {d.code for d in e.diagnostics} <= CANNOT_MEET)
        raise
    model = check_spec(arch).eval()
    x = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
