"""Joins: what they compute, where maps meet, and aggregators in their place."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, export

from blockforge.blocks import registry
from blockforge.blocks.aggregators.gated_sum import GatedSum
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.joins.aggregated import make_join
from blockforge.errors import OpError
from blockforge.testing import CHECKS, example_inputs, randomise
from blockforge.testing.copies import check_parameters

Shapes = tuple[Shape, ...]
SAME = (Shape(7, 5, 24), Shape(7, 5, 24), Shape(7, 5, 24))
BROADCAST = (Shape(1, 5, 24), Shape(7, 1, 24), Shape(7, 5, 1), Shape(1, 1, 24))
SIZES = (Shape(7, 5, 24), Shape(3, 9, 24), Shape(1, 1, 24), Shape(14, 10, 24))


def formula(name: str, weights: list[float] | None, maps: list[Tensor]) -> Tensor:
    """The join in plain torch, of maps that torch broadcasts."""
    if name == "mul":
        return reduce(torch.mul, maps)
    if name == "max":
        return reduce(torch.maximum, maps)
    if name == "mean":
        return sum(maps) / len(maps)  # type: ignore[return-value]
    if name == "concat":
        size = torch.broadcast_shapes(*(x.shape[:3] for x in maps))
        return torch.cat([x.expand(*size, x.shape[3]) for x in maps], -1)
    return sum(w * x for w, x in zip(weights or [1.0] * len(maps), maps, strict=True))  # type: ignore[return-value]


def interpolated(x: Tensor, like: Tensor, mode: str) -> Tensor:
    corners = False if mode == "bilinear" else None
    y = F.interpolate(x.permute(0, 3, 1, 2), like.shape[1:3], mode=mode, align_corners=corners)
    return y.permute(0, 2, 3, 1)


NAMES = ["mul", "max", "mean", "concat", "sum"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shapes", [SAME[:1], SAME[:2], SAME, BROADCAST], ids=["one", "two", "three", "broadcast"])
def test_values(name: str, shapes: Shapes) -> None:
    op, maps = make_join(name, {}), example_inputs("join", shapes, None, dtype=torch.float64)
    y, expected = op.build(shapes, None)(*maps), formula(name, None, list(maps))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert op.out_shape(shapes, None) == y.shape[1:]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", NAMES)
def test_resized_to_the_first(name: str, mode: str) -> None:
    op, maps = make_join(name, {"resize": mode}), example_inputs("join", SIZES, None, dtype=torch.float64)
    expected = formula(name, None, [interpolated(x, maps[0], mode) for x in maps])
    y = op.build(SIZES, None)(*maps)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert op.out_shape(SIZES, None) == y.shape[1:]


@pytest.mark.parametrize("weights", [[1, -1, 0.5], [0.25, 1, 1], [1, 1, 1]])
def test_weights(weights: list[float]) -> None:
    maps = example_inputs("join", SAME, None, dtype=torch.float64)
    expected = formula("sum", weights, list(maps))
    torch.testing.assert_close(make_join("sum", {"weights": weights}).build(SAME, None)(*maps), expected)
    sum_ = registry.make("sum", {"weights": weights}, "aggregator")
    place = (SAME[0], (24, 24), 24)
    sum_.check(*place)
    torch.testing.assert_close(sum_.build(*place)(maps[0], list(maps[1:])), expected)


def test_weights_that_are_learnt() -> None:
    """What relu leaves of them, by their sum."""
    maps, fused = example_inputs("join", SAME, None, dtype=torch.float64), make_join("fusion", {}).build(SAME, None)
    fused.load_state_dict({"weight": torch.tensor([1.0, -2.0, 3.0])})
    expected = formula("sum", [1 / 4.0001, 0, 3 / 4.0001], list(maps))
    torch.testing.assert_close(fused.double()(*maps), expected, rtol=1e-6, atol=1e-6)


FORMS: list[tuple[str, dict[str, Any], Shapes, int | None]] = [
    ("sum", {}, SAME, None),
    ("sum", {}, BROADCAST, None),
    ("sum", {"resize": "bilinear"}, SIZES, None),
    ("sum", {"weights": [1, -1, 2]}, SAME, None),
    ("sum", {"weights": [0.5, 2], "resize": "nearest"}, SIZES[:2], None),
    ("concat", {}, SAME, None),
    ("concat", {}, SAME, 30),
    ("concat", {}, BROADCAST, None),
    ("concat", {"resize": "bilinear"}, SIZES, None),
    ("concat", {"resize": "nearest"}, SIZES, 60),
    ("gated_sum", {}, SAME, None),
    ("fusion", {}, SAME, None),
    ("fusion", {}, BROADCAST, None),
    ("fusion", {"resize": "bilinear"}, SIZES, None),
    ("dmca", {}, SAME, 40),
    *((name, {}, BROADCAST, None) for name in ("mul", "max", "mean")),
    *((name, {"resize": "bilinear"}, SIZES, None) for name in ("mul", "max", "mean")),
    *((name, {}, SAME[:1], None) for name in ("mul", "max", "mean", "sum")),
]


@pytest.mark.parametrize(("name", "params", "shapes", "dim"), FORMS)
def test_laws(name: str, params: dict[str, Any], shapes: Shapes, dim: int | None) -> None:
    """What joins that no spec names keep: all laws but that they are in the registry."""
    op = make_join(name, params)
    op.check(shapes, dim)
    for check in CHECKS:
        if check is not check_parameters:
            check(op, shapes, dim)


@pytest.mark.parametrize("name", ["sum", "mul", "max"])
@pytest.mark.parametrize("params", [{}, {"resize": "bilinear"}])
def test_two_maps_at_a_time(name: str, params: dict[str, Any]) -> None:
    op, shapes = make_join(name, params), SIZES if params else BROADCAST
    assert op.pairwise
    maps = example_inputs("join", shapes, None)
    y, shape = maps[0], shapes[0]
    for x, other in zip(maps[1:], shapes[1:], strict=True):
        y, shape = op.build((shape, other), None)(y, x), op.out_shape((shape, other), None)
    assert torch.equal(y, op.build(shapes, None)(*maps))
    assert shape == op.out_shape(shapes, None)


def test_what_needs_all_maps_is_not_taken_two_at_a_time() -> None:
    assert not any(op.pairwise for op in (make_join("mean", {}), make_join("concat", {}), make_join("dmca", {})))
    assert not make_join("sum", {"weights": [1, -1]}).pairwise


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_do_not_meet(name: str) -> None:
    with pytest.raises(OpError, match="maps of 24x7x5, 24x1x1 and 24x7x6 do not meet") as e:
        make_join(name, {}).check((Shape(7, 5, 24), Shape(1, 1, 24), Shape(7, 6, 24)), None)
    assert "resize" in str(e.value.hint)


@pytest.mark.parametrize("name", ["sum", "mul", "max", "mean"])
def test_widths_that_differ(name: str) -> None:
    with pytest.raises(OpError, match="maps of 24x7x5 and 12x7x5 differ in their widths"):
        make_join(name, {}).check((Shape(7, 5, 24), Shape(7, 5, 12)), None)


def test_weights_of_another_number() -> None:
    with pytest.raises(OpError, match="there are 2 weights for 3 maps"):
        make_join("sum", {"weights": [1, -1]}).check(SAME, None)
    with pytest.raises(OpError, match="there are 2 weights for 3 maps"):
        registry.make("sum", {"weights": [1, -1]}).check(SAME[0], (24, 24), 24)


def test_an_aggregator_wants_two_maps_of_one_size() -> None:
    op = make_join("dmca", {})
    with pytest.raises(OpError, match="dmca has a single map of 24x7x5 to join"):
        op.check(SAME[:1], None)
    with pytest.raises(OpError, match="maps of 24x7x5 and 24x1x1 do not meet: dmca takes maps of one size"):
        op.check((Shape(7, 5, 24), Shape(1, 1, 24)), None)


def test_any_aggregator_is_a_join() -> None:
    op, maps = make_join("gated_sum", {}), example_inputs("join", SAME, None)
    module = randomise(op.build(SAME, None))
    plain = GatedSum().build(SAME[0], (24, 24), 24)
    plain.load_state_dict({name.removeprefix("aggregator."): v for name, v in module.state_dict().items()})
    assert torch.equal(module(*maps), plain(maps[0], list(maps[1:])))
    assert op == make_join("gated_sum", {})
    assert op.parameters_dict() == {"aggregator": {"op": "gated_sum"}}


def test_concat_has_a_convolution_only_to_another_width() -> None:
    op = make_join("concat", {})
    assert op.cost(SAME, None) == op.cost(SAME, 72) == Cost()
    assert op.out_shape(SAME, 10) == Shape(7, 5, 10)
    assert op.cost(SAME, 10).params == 72 * 10 + 10


def test_spellings_of_one_join() -> None:
    gate = (Shape(7, 5, 24), Shape(1, 1, 24))
    resizing, plain = make_join("mul", {"resize": "nearest"}), make_join("mul", {})
    assert resizing.resolved(gate, None) == plain.resolved(gate, None) == plain
    assert resizing.resolved(SIZES, None) == resizing
    ones = make_join("sum", {"weights": [1, 1, 1], "resize": "bilinear"})
    assert ones.resolved(SAME, None) == make_join("sum", {})


class Around(nn.Module):
    """A join of a map, half of it and its mean."""

    def __init__(self, join: nn.Module, maps: int) -> None:
        super().__init__()
        self.join, self.maps = join, maps

    def forward(self, x: Tensor) -> Tensor:
        half = F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        return self.join(*(x, half, x.mean((1, 2), keepdim=True))[: self.maps])


@pytest.mark.parametrize(
    ("name", "params", "maps"),
    [
        ("sum", {"resize": "bilinear"}, 3),
        ("concat", {"resize": "nearest"}, 3),
        ("attend", {"num_heads": 2, "bias": "rel_pos_table"}, 1),
        ("attend", {"num_heads": 2, "bias": "rel_pos_mlp"}, 1),
        ("attend", {"num_heads": 2, "bias": "rel_pos_vectors"}, 1),
        ("attend", {"num_heads": 2, "form": "relu_linear"}, 1),
    ],
)
def test_captured_with_sizes_that_vary(name: str, params: dict[str, Any], maps: int) -> None:
    shapes = (Shape(8, 12, 24), Shape(4, 6, 24), Shape(1, 1, 24))[:maps]
    net = Around(make_join(name, params).build(shapes, None), maps).eval()
    sides = {0: Dim("batch", min=1), 1: Dim("height", min=4, max=64), 2: Dim("width", min=4, max=64)}
    captured = export(net, (torch.randn(2, *shapes[0]),), dynamic_shapes={"x": sides}).module()
    for size in ((2, 8, 12), (3, 8, 8), (1, 7, 11), (2, 4, 5)):
        x = torch.randn(*size, 24)
        torch.testing.assert_close(captured(x), net(x))
