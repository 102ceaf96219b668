"""Statistics of nodes beside those of the maps themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blockforge.analyze import activation_statistics
from blockforge.compiler.lowering.backbone import Backbone

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]


def test_figures_are_those_of_the_maps(small: Small, noise: Noise) -> None:
    model = small("convnext")
    x = noise(model, 5)
    found = {s.node: s for s in activation_statistics(model, x.split(2))}
    with torch.no_grad():
        last = model.forward_features(x)
    node = [name for name, d in model.arch.graph.nodes(data=True) if d["stage"] is not None][-1]
    assert found[node].mean == pytest.approx(float(last.mean()), rel=1e-4, abs=1e-5)
    assert found[node].std == pytest.approx(float(last.std(correction=0)), rel=1e-4)
    assert found[node].max_abs == pytest.approx(float(last.abs().max()), rel=1e-5)
    assert found[node].channels == last.shape[1]


@pytest.mark.parametrize("spec", ["convnext", "dwconv_downsample", "concat"])
def test_every_node_has_its_row_in_order(small: Small, noise: Noise, spec: str) -> None:
    """Sums of long skips and aggregators included."""
    model = small(spec)
    found = [s.node for s in activation_statistics(model, [noise(model, 2)])]
    assert found == [name for name in model.arch.graph.nodes if name != "input"]


def test_dead_channels_zeros_and_infinities(small: Small, noise: Noise) -> None:
    model = small("attention")
    model.stem.register_forward_hook(lambda _, args, value: value.index_fill(-1, torch.tensor([2, 5]), 0.0))
    stem = activation_statistics(model, [noise(model, 2)])[0]
    # hooks run in the order in which they were registered: the statistics see the change
    assert (stem.node, stem.dead, stem.flags) == ("stem", 2, ("dead channels",))
    assert stem.zeros == pytest.approx(2 / stem.channels)
    model.stem.register_forward_hook(lambda _, args, value: value * torch.inf)
    stem = activation_statistics(model, [noise(model, 2)])[0]
    assert "not finite" in stem.flags


def test_growth_is_relative_to_what_a_node_reads(small: Small, noise: Noise) -> None:
    model = small("attention")
    x = noise(model, 2)
    before = activation_statistics(model, [x])[0]
    model.stem.register_forward_hook(lambda _, args, value: value * 1e7)
    stem = activation_statistics(model, [x])[0]
    assert stem.growth == pytest.approx(1e7 * before.growth, rel=1e-3)
    assert {"above float16", f"grows x{stem.growth:.0f}"} <= set(stem.flags)
    assert stem.as_dict()["flags"] == ", ".join(stem.flags)


def test_all_equal(small: Small, noise: Noise) -> None:
    model = small("attention")
    model.stem.register_forward_hook(lambda _, args, value: torch.ones_like(value))
    assert activation_statistics(model, [noise(model, 2)])[0].flags == ("all equal",)
