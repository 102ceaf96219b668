"""The parts of blocks against torch's own words, beside the laws that hold for every block."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.blocks import registry
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.layers import DWConv
from blockforge.blocks.part import Part
from blockforge.blocks.parts.dwconv import DepthwisePart
from blockforge.blocks.parts.linear import LinearPart
from blockforge.errors import OpError
from blockforge.testing import CHECKS, accepts, build_on_maps, example_inputs, example_places, variants

MAP = Shape(11, 8, 12)


def made(name: str, **params: Any) -> Part:
    op = registry.make(name, params, "part")
    assert isinstance(op, Part)
    return op


def ran(op: Part, shape: Shape = MAP, dim: int | None = None) -> tuple[Tensor, Tensor, Any]:
    """Its input and its result as x_BCHW, and its module."""
    op.check(shape, dim)
    module = build_on_maps(op, shape, dim).eval()
    (x,) = example_inputs("part", shape, dim)
    with torch.no_grad():
        y = module(x)
    assert tuple(y.shape[1:]) == op.out_shape(shape, dim)
    return x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2), module


def _padded_as_tensorflow(x: Tensor, kernel: int, stride: int, dilation: int = 1, value: float = 0.0) -> Tensor:
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


# --- sliding kernels


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (7, 2, 3), (2, 1, 0), (4, 3, 1), (2, 2, 0), (4, 4, 0), (3, 4, 0), (1, 2, 0), (7, 4, 3)],
)
def test_same_is_half_the_kernel_and_nothing_of_patches(kernel: int, stride: int, padding: int) -> None:
    x, y, module = ran(made("conv", kernel_size=kernel, stride=stride), dim=20)
    weight, bias = module[0].weight, module[0].bias
    torch.testing.assert_close(y, F.conv2d(x, weight, bias, stride, padding), rtol=1e-4, atol=1e-5)


def test_same_of_a_dilated_kernel() -> None:
    x, y, module = ran(made("conv", kernel_size=[3, 5], dilation=[2, 1], groups=4))
    conv = module[0]
    wanted = F.conv2d(x, conv.weight, conv.bias, 1, (2, 2), (2, 1), 4)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["conv", "max_pool", "avg_pool"])
def test_tf_pads_as_tensorflow_does(name: str, kernel: int, stride: int) -> None:
    for size in ((11, 8), (12, 9)):
        x, y, module = ran(made(name, kernel_size=kernel, stride=stride, padding="tf"), Shape(*size, 12))
        assert y.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))
        if name == "conv":
            wanted = F.conv2d(_padded_as_tensorflow(x, kernel, stride), module[0].weight, module[0].bias, stride)
        elif name == "max_pool":
            wanted = F.max_pool2d(_padded_as_tensorflow(x, kernel, stride, value=-torch.inf), kernel, stride)
        else:
            wanted = F.avg_pool2d(_padded_as_tensorflow(x, kernel, stride), kernel, stride)
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)


def test_sizes_are_torchs() -> None:
    sides = itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (False, True), range(5, 12))
    for kernel, stride, padding, ceil, side in sides:
        op = made("max_pool", kernel_size=kernel, stride=stride, padding=padding, ceil=ceil)
        shape = Shape(side, side + 1, 2)
        if accepts(op, shape, None):
            wanted = F.max_pool2d(torch.zeros(1, 2, *shape[:2]), kernel, stride, padding, ceil_mode=ceil)
            assert op.out_shape(shape, None)[:2] == wanted.shape[2:], (op, shape)


def test_zeros_around_a_mean_count_or_not() -> None:
    for counted in (True, False):
        x, y, _ = ran(made("avg_pool", kernel_size=3, stride=2, count_include_pad=counted))
        torch.testing.assert_close(y, F.avg_pool2d(x, 3, 2, 1, count_include_pad=counted))
    with pytest.raises(OpError, match="zeros of padding tf count"):
        made("avg_pool", padding="tf", count_include_pad=False).check(MAP, None)


def test_a_pool_pads_at_most_half_its_kernel() -> None:
    with pytest.raises(OpError, match="padding 0x2 is more than half of the kernel 2x3") as caught:
        made("max_pool", kernel_size=[2, 3], padding=[0, 2]).check(MAP, None)
    assert (caught.value.param, caught.value.hint) == ("padding", "at most 1")


# --- widths, groups, one way to say it


def test_a_convolution_gives_what_it_is_asked_for_else_what_it_reads() -> None:
    assert [made(name).out_shape(MAP, dim).dim for name in ("conv", "linear") for dim in (None, 7)] == [12, 7, 12, 7]
    assert [made(name).out_shape(MAP, 7).dim for name in ("max_pool", "global_pool")] == [12, 12]
    assert DepthwisePart().out_shape(MAP, 7).dim == 12


def test_groups_or_their_width() -> None:
    assert made("conv", group_width=3).cost(MAP, 24) == made("conv", groups=4).cost(MAP, 24)
    for params, param, match in (
        ({"groups": 5}, "groups", "channels 12 is not divisible by groups 5"),
        ({"groups": 12}, "groups", "dim 20 is not divisible by groups 12"),
        ({"group_width": 5}, "group_width", "channels 12 is not divisible by group_width 5"),
        ({"group_width": 1}, "group_width", "dim 20 is not divisible by groups 12"),
        ({"groups": 2, "group_width": 6}, "group_width", "groups 2 and group_width 6 say one thing twice"),
    ):
        with pytest.raises(OpError, match=match) as caught:
            made("conv", **params).check(MAP, 20)
        assert caught.value.param == param
        assert caught.value.hint


def test_one_of_two_spellings() -> None:
    linear = made("linear", bias=True)
    assert made("conv").resolved(MAP, 30) == made("linear").resolved(MAP, 30) == linear
    assert made("conv", padding="tf", dilation=2, groups=1).resolved(MAP, 30) == linear
    assert made("conv", bias=False).resolved(MAP, 30) == LinearPart(bias=False)
    assert made("conv", init="uniform").resolved(MAP, 30).op == "conv"
    assert made("conv", stride=2).resolved(MAP, 30).op == "conv"
    wide = made("conv", kernel_size=[3, 3], groups=12)
    assert wide.resolved(MAP, None) == wide.resolved(MAP, 12) == DepthwisePart().resolved(MAP, None)
    assert wide.resolved(MAP, 24).op == "conv"
    spelled = made("conv", kernel_size=3, group_width=4, padding=[1, 1], bias=True, dilation=[1, 1])
    assert spelled.resolved(MAP, None) == made("conv", kernel_size=3, groups=3).resolved(MAP, None)
    assert spelled.resolved(MAP, None) != made("conv", kernel_size=3, groups=3, padding=0).resolved(MAP, None)


def test_what_mixes() -> None:
    mixing = [made("conv", kernel_size=[1, 3]), DepthwisePart(), made("max_pool"), made("global_pool")]
    assert all(op.mixes for op in mixing)
    assert not any(op.mixes for op in (made("conv", stride=2), made("linear"), DepthwisePart(kernel_size=1)))


def test_sides_are_a_number_or_two() -> None:
    assert made("conv", kernel_size=[5, 5]) == made("conv", kernel_size=5)
    for wrong in ([3], [3, 3, 3], 0, [1, 100]):
        with pytest.raises(registry.ParamsError):
            made("conv", kernel_size=wrong)


# --- other sizes, channels, positions


def test_cells_of_a_grid() -> None:
    x, y, _ = ran(made("adaptive_pool", size=[3, 20]))
    torch.testing.assert_close(y, F.adaptive_avg_pool2d(x, (3, 20)))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_one_position_of_all(pool: str) -> None:
    x, y, _ = ran(made("global_pool", pool=pool))
    torch.testing.assert_close(y, x.mean((2, 3), keepdim=True) if pool == "mean" else x.amax((2, 3), keepdim=True))


def test_squares_lie_side_by_side_as_in_patch_merging() -> None:
    x, y, _ = ran(made("space_to_depth"))
    merging = registry.make("patch_merging", {}, "downsample").build(MAP, 24)
    assert torch.equal(y.permute(0, 2, 3, 1), merging.merge(x.permute(0, 2, 3, 1)))


def test_channels_become_squares_as_torch_has_it() -> None:
    x, y, _ = ran(made("pixel_shuffle"))
    assert torch.equal(y, F.pixel_shuffle(x, 2))
    with pytest.raises(OpError, match=r"channels 12 is not divisible by block\^2 25"):
        made("pixel_shuffle", block=5).check(MAP, None)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 2), (3, 2), (5, 2), (3, 3), (3, 1), (1, 1), (6, 4)])
def test_a_transposed_convolution_gives_so_many_times_the_sides(kernel: int, stride: int) -> None:
    for groups, dim in ((1, 20), (4, None)):
        x, y, module = ran(made("conv_transpose", kernel_size=kernel, stride=stride, groups=groups), dim=dim)
        conv, beyond = module[0], kernel - stride
        cut, left = (beyond + 1) // 2, beyond % 2
        wanted = F.conv_transpose2d(x, conv.weight, conv.bias, stride, cut, left, groups)
        assert wanted.shape[2:] == (11 * stride, 8 * stride)
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_leaves_no_holes() -> None:
    for params, match, hint in (
        ({"kernel_size": 2, "stride": 3}, "a kernel of 2 leaves holes at stride 3", "at least 3"),
        ({"kernel_size": 4, "stride": 1}, "an even kernel, 4, does not keep the map's size", "5 does"),
    ):
        with pytest.raises(OpError, match=match) as caught:
            made("conv_transpose", **params).check(MAP, None)
        assert (caught.value.param, caught.value.hint) == ("kernel_size", hint)


def test_weights_of_channels_positions_or_groups() -> None:
    for params, axes in (({}, 1), ({"axis": "positions"}, (2, 3)), ({"axis": "groups", "groups": 3}, None)):
        x, y, _ = ran(made("softmax", **params))
        if axes is None:
            x, y = x.unflatten(1, (3, 4)), y.unflatten(1, (3, 4))
        up = x.exp()
        torch.testing.assert_close(y, up / up.sum(axes or 1, keepdim=True))
    assert made("softmax", axis="groups").resolved(MAP, None) == made("softmax", axis="groups", groups=2)
    for params, match in (
        ({"axis": "groups", "groups": 5}, "channels 12 is not divisible by groups 5"),
        ({"groups": 2}, "there are no groups along channels"),
    ):
        with pytest.raises(OpError, match=match) as caught:
            made("softmax", **params).check(MAP, None)
        assert caught.value.param == "groups"


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_other_sizes(mode: str) -> None:
    corners = None if mode == "nearest" else False
    for params, size in (
        ({}, (22, 16)),
        ({"scale": 0.5}, (5, 4)),
        ({"scale": 1.5}, (16, 12)),
        ({"size": [3, 9]}, (3, 9)),
    ):
        x, y, _ = ran(made("resize", mode=mode, **params))
        torch.testing.assert_close(y, F.interpolate(x, size, mode=mode, align_corners=corners))
    assert made("resize").resolved(MAP, None) == made("resize", scale=2).resolved(MAP, None)
    with pytest.raises(OpError, match="scale and size say one thing twice"):
        made("resize", scale=2, size=4).check(MAP, None)


def test_a_slice_is_a_view_of_channels_that_there_are() -> None:
    x, y, _ = ran(made("slice", start=3, size=4))
    assert torch.equal(y, x[:, 3:7])
    assert made("slice", start=3).resolved(MAP, None) == made("slice", start=3, size=9)
    for params, param, match, hint in (
        ({"start": 12}, "start", "start 12 is behind the 12 channels", "0 to 11"),
        ({"start": 8, "size": 5}, "size", "channels 8 to 12 of a map with 12", "size at most 4"),
    ):
        with pytest.raises(OpError, match=match) as caught:
            made("slice", **params).check(MAP, None)
        assert (caught.value.param, caught.value.hint) == (param, hint)


def test_channels_in_turn() -> None:
    x, y, _ = ran(made("shuffle", groups=3))
    assert torch.equal(y, F.channel_shuffle(x, 3))
    with pytest.raises(OpError, match="channels 12 is not divisible by groups 5"):
        made("shuffle", groups=5).check(MAP, None)


def test_a_scale_starts_where_it_is_told() -> None:
    for bias in (False, True):
        for per_channel in (True, False):
            x, y, module = ran(made("scale", init=0.5, bias=bias, per_channel=per_channel))
            torch.testing.assert_close(y, x * 0.5)
            assert {p.numel() for p in module.parameters()} == {12 if per_channel else 1}
    assert made("scale", per_channel=True).resolved(MAP, None) == made("scale")
    whole = made("scale", bias=True, per_channel=False)
    assert whole.cost(MAP, None) == Cost(params=2)


def test_what_training_drops_is_the_map_itself_in_inference() -> None:
    for name in ("dropout", "drop_path"):
        op = made(name, rate=0.5)
        x, y, module = ran(op)
        assert y.data_ptr() == x.data_ptr()
        torch.manual_seed(0)
        dropped = module.train()(torch.ones(64, *MAP))
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        assert set(dropped[0].unique().tolist()) == ({0.0, 2.0} if name == "dropout" else {dropped[0, 0, 0, 0].item()})


def test_names_of_the_place() -> None:
    """What is left out is a parameter that there is."""
    for cls in registry.blocks("part").values():
        assert issubclass(cls, Part)
        assert cls.of_place.keys() <= cls.model_fields.keys()


def test_logits_of_no_classes_are_what_they_read() -> None:
    x, y, _ = ran(made("logits", num_classes=0))
    assert torch.equal(x, y)
    assert made("logits", num_classes=5, bias=False).cost(MAP, None).params == 60
    assert made("logits", num_classes=5).out_shape(MAP, 7) == Shape(11, 8, 5)


def test_positions_of_another_square_are_resized() -> None:
    module: Any = made("pos_embed").build(Shape(6, 4, 12), None)
    assert module.resized("pos_embed", torch.randn(25, 12)).shape == (24, 12)
    assert module.resized("pos_embed", torch.randn(24, 12)) is None  # no square
    with pytest.raises(OpError, match="pos_embed was built for maps of 6x4, not 4x6"):
        module(torch.randn(1, 4, 6, 12))


def test_sines_of_rows_and_columns() -> None:
    """Waves from one to many sides of the map, whatever its size."""
    x = torch.randn(2, 3, 5, 7)
    y = made("sines", channels=8).build(Shape(3, 5, 7), None)(x)
    assert torch.equal(y[..., :7], x)
    y = y[..., 7:]
    row, column, longest = 2, 4, 10000 ** (4 / 8)
    angles = [2 * math.pi * (place + 1) / side for place, side in ((row, 3), (column, 5))]
    waves = [wave(angle / length) for angle in angles for length in (1, longest) for wave in (math.sin, math.cos)]
    torch.testing.assert_close(y[1, row, column], torch.tensor(waves), rtol=1e-4, atol=1e-4)
    assert torch.equal(y[0], y[1])
    with pytest.raises(OpError, match="channels 6 is not divisible by sine and cosine of row and column 4"):
        made("sines", channels=6).check(Shape(3, 5, 7), None)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rope", {"head_dim": 4}),
        ("blur_pool", {}),
        ("std_conv", {"kernel_size": 3, "stride": 2, "padding": "tf"}),
        ("conv", {"kernel_size": 3, "stride": 2, "padding": "tf"}),
        ("conv", {"kernel_size": 3, "dilation": 2}),
        ("max_pool", {"kernel_size": 3, "stride": 2, "ceil": True}),
        ("avg_pool", {"padding": "tf"}),
        ("adaptive_pool", {"size": 2}),
        ("resize", {}),
        ("resize", {"scale": 1.5, "mode": "bilinear"}),
        ("space_to_depth", {}),
        ("pixel_shuffle", {}),
        ("conv_transpose", {}),
        ("softmax", {"axis": "positions"}),
        ("l2_norm", {"axis": "positions"}),
        ("pad", {"bottom": 1, "right": 2}),
        ("scale", {"bias": True, "per_channel": False}),
        ("shuffle", {}),
    ],
)
def test_a_captured_part_takes_other_sizes(name: str, params: dict[str, Any]) -> None:
    module = build_on_maps(made(name, **params), Shape(16, 16, 12), None).eval()
    sides = {axis: 8 * torch.export.Dim(f"side_{axis}", min=1, max=64) for axis in (1, 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captured = torch.export.export(module, (torch.randn(2, 16, 16, 12),), dynamic_shapes=(sides,)).module()
    x = torch.randn(2, 24, 8, 12)
    torch.testing.assert_close(captured(x), module(x), rtol=1e-4, atol=1e-5)


# --- the mixer `dwconv`, as a part


@pytest.mark.parametrize("op", list(variants(DepthwisePart)), ids=str)
def test_a_depthwise_part_keeps_the_laws(op: DepthwisePart) -> None:
    place = next(place for place in example_places("part") if accepts(op, *place))
    for check in CHECKS:
        if check.__name__ != "check_parameters":  # the registry knows the mixer
            check(op, *place)


def test_the_mixer_is_a_part_that_can_do_more() -> None:
    mixer = registry.make("dwconv", {"kernel_size": [2, 5], "stride": 2, "bias": False}, "mixer")
    assert mixer.as_part() == DepthwisePart(kernel_size=(2, 5), stride=2, bias=False)
    assert isinstance(registry.make("dwconv", {"kernel_size": [1, 11]}, "mixer").build(MAP), DWConv)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"kernel_size": [3, 4]}, "kernel size 4 is even"),
        ({"stride": 2}, "stride 2 does not keep"),
        ({"padding": 0}, "padding 0 does not keep"),
        ({"dilation": 2}, "dilation 2 does not keep"),
        ({"padding": 0, "dilation": 1}, "padding 0 does not keep"),
    ],
)
def test_in_a_branch_it_keeps_the_map(params: dict[str, Any], match: str) -> None:
    with pytest.raises(OpError, match=match) as caught:
        registry.make("dwconv", params, "mixer").check(MAP)
    assert caught.value.param in params
