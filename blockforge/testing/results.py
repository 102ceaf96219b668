"""Laws of what a module gives: on which images, sizes, types and positions it may depend, and on which not."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor

from blockforge.blocks.base import Act, Op, Place, Shape
from blockforge.blocks.tokens import maps_at
from blockforge.errors import OpError
from blockforge.kernels.cpu import activate
from blockforge.testing.examples import accepts, build_on_maps, example_inputs, example_module, expected_shape, flat
from blockforge.torch_private import tree_map_only


def check_batch(op: Op[*Place], *place: *Place) -> None:
    """In evaluation an image's result depends on that image alone, wherever it stands in the batch."""
    module, x = example_module(op, *place), example_inputs(op.kind, *place, batch=4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        whole, permuted = module(*x), module(*tree_map_only(Tensor, lambda t: t[order], x))
        alone = module(*tree_map_only(Tensor, lambda t: t[2:3], x))
    noise = 1e-5 * whole.abs().max().item()  # another batch may be summed in another order
    torch.testing.assert_close(permuted, whole[order], rtol=1e-4, atol=noise)
    torch.testing.assert_close(alone, whole[2:3], rtol=1e-4, atol=noise)


def check_deterministic(op: Op[*Place], *place: *Place) -> None:
    """In evaluation the same input gives the same bits, and the input stays as it was."""
    module, x = example_module(op, *place), example_inputs(op.kind, *place)
    before = copy.deepcopy(x)
    with torch.no_grad():
        assert torch.equal(module(*x), module(*x)), "two runs differ"
    same = all(torch.equal(a, b) for a, b in zip(flat(x), flat(before), strict=True))
    assert same, "the module writes into its input"


def check_overwrites(op: Op[*Place], *place: *Place) -> None:
    """An activation that may overwrite gives the same in its input's memory, where nobody else reads that; any other
    leaves its input alone."""
    if op.kind != "act":
        return
    module, (x,) = example_module(op, *place), example_inputs(op.kind, *place)
    given = x.clone()
    with torch.no_grad():
        wanted, y = module(x), activate(module, given, own=True)
    overwritten = y.data_ptr() == given.data_ptr()
    said = isinstance(op, Act) and op.overwrites
    assert overwritten is said, f"overwrites is {said}, whether it does is {overwritten}"
    assert torch.equal(y, wanted), "in its input's memory it gives another result"


def check_bfloat16(op: Op[*Place], *place: *Place) -> None:
    """It runs in bfloat16 and gives about what it gives in float32."""
    module, x = example_module(op, *place), example_inputs(op.kind, *place)
    with torch.no_grad():
        exact = module(*x)
        y = module.bfloat16()(*tree_map_only(Tensor, lambda t: t.bfloat16(), x))
    assert y.dtype == torch.bfloat16, f"bfloat16 gives {y.dtype}"
    error = ((y.float() - exact).norm() / exact.norm()).item()
    assert error < 0.1, f"bfloat16 is off by {error:.3f} of the result"


def check_sizes(op: Op[*Place], *place: *Place) -> None:
    """Built for one size and run at another it is what the same weights are that were built for that one, or it refuses
    in words. Where the size decides how many parameters there are, it gives the shape of the other size."""
    if op.kind == "join":
        return
    module, shape = example_module(op, *place), maps_at(op.kind, place)[0]
    height, width = shape[:2]
    for size in ((height + 3, width + 1), (width, height), (2 * height + 1, 3), (3, 2 * width + 2), (height // 2, 2)):
        other_shape = shape._replace(height=size[0], width=size[1])
        at = _on(other_shape, place)
        if not accepts(op, *at) or min(op.out_shape(*at)) < 1 or other_shape.row == shape.row:
            continue  # beside tokens a row does not tell how its positions lie
        x, other = example_inputs(op.kind, *at), build_on_maps(op, *at).eval()
        with torch.no_grad():
            try:
                y = module(*x)
            except OpError:
                continue
            assert tuple(y.shape) == expected_shape(op, at, 2), f"at {size} it gives {tuple(y.shape)}"
            state = module.state_dict()
            if {k: v.shape for k, v in other.state_dict().items()} != {k: v.shape for k, v in state.items()}:
                continue
            other.load_state_dict(state)
            wanted = other(*x)
        assert torch.allclose(y, wanted, rtol=1e-4, atol=1e-5), f"at {size} it is off by {(y - wanted).abs().max()}"


def _on(shape: Shape, place: tuple[*Place]) -> tuple[*Place]:
    """The same place on another map."""
    return cast(tuple[*Place], (shape, *cast(tuple[Any, ...], place)[1:]))


def check_tokens(op: Op[*Place], *place: *Place) -> None:
    """A block that treats extra tokens as `each` position treats all positions alike, wherever they stand."""
    if op.tokens_are() != "each":
        return
    module, x = example_module(op, *place), example_inputs(op.kind, *place)
    if len({t.shape[1:3] for t in flat(x)}) > 1:
        return  # maps that are resized or spread to meet
    positions = max(t.shape[1] * t.shape[2] for t in flat(x))
    order = torch.randperm(positions, generator=torch.Generator().manual_seed(2))

    def moved(t: Tensor) -> Tensor:
        return t.flatten(1, 2)[:, order].unflatten(1, t.shape[1:3]) if t.shape[1] * t.shape[2] == positions else t

    with torch.no_grad():
        y, of_moved = module(*x), module(*tree_map_only(Tensor, moved, x))
    torch.testing.assert_close(of_moved, moved(y), rtol=1e-4, atol=1e-5, msg=lambda m: f"positions differ: {m}")


def check_head(op: Op[*Place], *place: *Place) -> None:
    """A head gives features before its classifier, and takes a new classifier."""
    if op.kind != "head":
        return
    module, x = example_module(op, *place), example_inputs(op.kind, *place)
    features = module(*x, pre_logits=True)
    assert features.ndim == 2, f"pre_logits gives {tuple(features.shape)}, not one row an image"
    reset: Any = module.reset
    reset(7)
    assert tuple(module(*x).shape) == (2, 7), f"after reset(7) it gives {tuple(module(*x).shape)}"
    reset(0)
    assert torch.equal(module(*x), features), "after reset(0) it does not give the features"
