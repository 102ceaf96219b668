"""Group strip mixing as a grouped convolution against its definition, line by line."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from duality import Operands, assert_close, poisoned, results, to
from strips import mixed, strip_operands
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.strip_mix import Axis, strip_mix

AXES: list[Axis] = ["rows", "columns"]


def check(operands: Operands, tolerance: float, **options: object) -> None:
    """The convolution's output and gradients are those of the definition on the same numbers, in float64."""
    with poisoned():
        found = results(partial(mixed, backend="torch", **options), operands)
    assert_close(found, results(partial(mixed, backend="reference", **options), to(operands)), tolerance)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("height", "width", "groups", "per_group", "strip"),
    [(1, 1, 1, 1, 1), (1, 2, 3, 1, 3), (5, 1, 1, 4, 5), (4, 7, 3, 2, 3), (3, 13, 2, 3, 1), (2, 3, 2, 2, 7)],
)
def test_equals_the_definition(height: int, width: int, groups: int, per_group: int, strip: int, axis: Axis) -> None:
    check(to(strip_operands(height, width, groups, per_group, strip, columns=axis == "columns")), 1e-12, axis=axis)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("beside_first", [False, True])
def test_joins_the_map_beside_it(axis: Axis, beside_first: bool) -> None:
    operands = to(strip_operands(4, 5, 2, 2, 3, columns=axis == "columns"))
    alone = mixed(*operands[:4], None, axis=axis)
    parts = (operands[4], alone) if beside_first else (alone, operands[4])
    joined = mixed(*operands, axis=axis, beside_first=beside_first)
    assert torch.equal(joined, torch.cat(parts, dim=-1))
    check(operands, 1e-12, axis=axis, beside_first=beside_first)
    check((*operands[:4], None), 1e-12, axis=axis)


@pytest.mark.parametrize("axis", AXES)
def test_any_strides(axis: Axis) -> None:
    """A map that is cut out of a transposed one, and a position table shared by all positions."""
    x, pos, weight, bias, beside = strip_operands(5, 5, 2, 3, 3)
    operands = (
        x.transpose(1, 2)[:, :, ::1],
        pos[:1, :1].expand(5, 5, 6),
        weight,
        bias,
        beside.transpose(1, 3)[..., :5],
    )
    operands = (*operands[:4], beside.permute(0, 2, 1, 3))
    found = mixed(*operands, axis=axis, backend="torch")
    assert_close([found], [mixed(*(t.contiguous() for t in operands), axis=axis, backend="reference")], 1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    operands = to(strip_operands(6, 7, 3, 2, 3), dtype)
    assert {t.dtype for t in results(partial(mixed, axis="rows"), operands)} == {dtype}
    check(operands, tolerance, axis="rows")


@pytest.mark.parametrize("axis", AXES)
def test_derivative(axis: Axis) -> None:
    operands = to(strip_operands(3, 4, 2, 2, 3, columns=axis == "columns"))
    assert torch.autograd.gradcheck(partial(mixed, axis=axis), operands, fast_mode=True)


def test_a_counter_sees_the_products() -> None:
    with FlopCounterMode(display=False) as counter:
        mixed(*strip_operands(4, 7, 3, 2, 5), axis="rows")
    assert counter.get_total_flops() == 2 * (2 * 4 * 7 * 6) * 7 * 5


class _Mixed(torch.nn.Module):
    def forward(self, *operands: Tensor) -> Tensor:
        return mixed(*operands, axis="columns")


def test_captured_graphs_give_the_same() -> None:
    operands = strip_operands(4, 7, 3, 2, 3, columns=True)
    exported = torch.export.export(_Mixed(), operands)
    assert not any("blockforge" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*operands), _Mixed()(*operands))
    compiled = torch.compile(_Mixed(), fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, to(operands)), results(_Mixed(), to(operands)), 1e-12)


@pytest.mark.parametrize(
    ("at", "message"), [(0, "x must be"), (1, "pos must be"), (2, "weight must be"), (3, "bias must be"), (4, "beside")]
)
def test_shapes_that_do_not_fit(at: int, message: str) -> None:
    operands = list(strip_operands(4, 5, 2, 2, 3))
    operands[at] = operands[at][:1, ..., None]
    with pytest.raises(ValueError, match=message):
        mixed(*operands, axis="rows")


def test_weights_that_do_not_fit() -> None:
    x, pos, weight, bias, _ = strip_operands(4, 5, 2, 2, 3)
    with pytest.raises(ValueError, match="an odd strip"):
        strip_mix(x, pos, weight[..., :2], bias, axis="rows")
    with pytest.raises(ValueError, match=r"weight must be \(groups \* 4, 4, 1, strip\)"):
        strip_mix(x, pos, weight, bias, axis="columns")
    with pytest.raises(ValueError, match="axis must be rows or columns, not 'row'"):
        strip_mix(x, pos, weight, bias, axis="row")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups that divide 3 channels"):
        strip_mix(x[..., :3], pos[..., :3], weight, bias, axis="rows")
