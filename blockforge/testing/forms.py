"""What a block says of itself for the form that is deployed: its parts, and the convolution that it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from blockforge.blocks.base import Op, Place
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.filters import Filter
from blockforge.testing.examples import build_on_maps, example_inputs
from blockforge.testing.measure import randomise


def check_program(op: Op[*Place], *place: *Place) -> None:
    """The parts that a block says it is made of cost what it costs, are in its module by their names, and compute what
    it does."""
    if op.kind == "head" or (program := op.as_program(*place)) is None:
        return
    cost, own = program.cost(), op.cost(*place)
    assert program.out_shape == op.out_shape(*place), f"its parts give {program.out_shape}"
    assert (cost.params, cost.macs) == (own.params, own.macs), f"its parts cost {cost}, the block {own}"
    module = _moved(op.build(*place))
    parts = Composed(program)
    for step in program.own_modules():
        parent, _, name = step.path.rpartition(".")
        setattr(parts.get_submodule(parent), name, module.get_submodule(step.path))
    parts.hold_types()
    (x,) = example_inputs(op.kind, *place, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(parts.eval()(x), module(x), rtol=1e-4, atol=1e-5, msg="its parts give another map")


def check_filter(op: Op[*Place], *place: *Place) -> None:
    """Where a block is a convolution in inference, that convolution gives what its module does."""
    if (filter := op.as_filter(*place)) is None or filter.padding is None:
        return
    module = _moved(op.build(*place))
    weight, bias = op.filter_values(module)
    assert (bias is not None) == filter.bias, "it says otherwise whether there is a bias"
    (x,) = example_inputs(op.kind, *place, batch=2)
    with torch.no_grad():
        y = convolved(x, weight.float(), None if bias is None else bias.float(), filter)
        maps = build_on_maps(op, *place)
        maps.load_state_dict(dict(zip(maps.state_dict(), module.state_dict().values(), strict=True)))
        torch.testing.assert_close(y, maps.eval()(x), rtol=1e-4, atol=1e-4)


def convolved(x_BHWC: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, filter: Filter) -> torch.Tensor:
    """What a convolution of these sizes and values makes of a map."""
    assert filter.padding is not None
    how = (filter.stride, filter.padding, filter.dilation, filter.groups)
    return F.conv2d(x_BHWC.permute(0, 3, 1, 2), weight, bias, *how).permute(0, 2, 3, 1)


def _moved(module: nn.Module) -> nn.Module:
    """In evaluation mode, parameters and statistics off their initial values."""
    generator = torch.Generator().manual_seed(2)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.rand(buffer.shape, generator=generator) * (1.0 if name.endswith("var") else 0.3))
    return randomise(module).eval()
