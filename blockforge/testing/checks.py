"""What every building block must keep, one function a law: `check_x(op, *place)` raises AssertionError."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from blockforge.blocks import registry
from blockforge.blocks.base import Act, AnyOp, Mixer, Op, Place, Placed, Shape
from blockforge.errors import OpError
from blockforge.kernels import backend
from blockforge.kernels.costs import costs_of
from blockforge.kernels.cpu import activate
from blockforge.testing.checkpointing import check_checkpointing
from blockforge.testing.examples import accepts, build_on_maps, example_inputs, example_places
from blockforge.testing.forms import check_filter, check_program
from blockforge.testing.leaves import check_hooks, check_layout, check_parametrized, check_replaced
from blockforge.testing.measure import count_macs, peak_bytes_per_image, per_image, randomise, runnable_backends
from blockforge.testing.steps import saved_on_cpu, saved_on_meta
from blockforge.torch_private import names_of_computed_buffers, tree_map_only

TOLERANCE = 0.1
"""Of memory: predicted against allocated."""


def check_op(op: AnyOp, *place: Any) -> None:
    """Run every check on a block at a place, or at every example place of its kind that it accepts.

    Raises: AssertionError that names the block, the place and the law.
    """
    places: list[tuple[Any, ...]] = [place] if place else [p for p in example_places(op.kind) if accepts(op, *p)]
    assert places, f"{op.op} accepts no example place of a {op.kind}; give one: check_op(op, *place)"
    for at in places:
        for check in CHECKS:
            try:
                check(op, *Placed(op, at).told)
            except AssertionError as e:
                raise AssertionError(f"{check.__name__}: {op.op}({op}) at {at}: {e}") from e


def check_costs(op: Op[*Place], *place: *Place) -> None:
    """Parameters and multiply-adds are what the module has and does."""
    module, cost = build_on_maps(op, *place), op.cost(*place)
    counted = sum(p.numel() for p in module.parameters())
    assert cost.params == counted, f"predicted {cost.params} parameters, the module has {counted}"
    x = example_inputs(op.kind, *place, batch=1)
    macs = count_macs(lambda: module.eval()(*x)) + cost.scan
    assert cost.macs == macs, f"predicted {cost.macs} multiply-adds, torch counts {macs} (scans included)"


def check_shape(op: Op[*Place], *place: *Place) -> None:
    """The module gives the shape that the block declares."""
    y, expected = _module(op, place)(*example_inputs(op.kind, *place, batch=3)), _expected(op, place, 3)
    assert tuple(y.shape) == expected, f"declared {expected}, the module gives {tuple(y.shape)}"
    assert y.dtype == torch.float32, f"float32 gives {y.dtype}"


def check_workspace(op: Op[*Place], *place: *Place) -> None:
    """The declared workspace is the memory that a forward pass takes, on every backend that costs are of."""
    module = _module(op, place)
    for name in runnable_backends():
        with costs_of(name), backend(name):
            predicted = op.workspace(*place) * 4
            measured = peak_bytes_per_image(module, lambda batch: example_inputs(op.kind, *place, batch=batch))
        close = abs(predicted - measured) <= TOLERANCE * measured
        assert close, f"predicted {predicted} bytes an image at most on {name}, {measured} were alive"


def check_training_memory(op: Op[*Place], *place: *Place) -> None:
    """What the backward pass needs on the CPU is what it needs on the meta device, where training memory is found; on
    every backend that costs are of."""
    for name in runnable_backends():
        predicted = per_image(lambda batch, name=name: saved_on_meta(op, place, batch, name))  # type: ignore[misc]
        measured = per_image(lambda batch, name=name: saved_on_cpu(op, place, batch, name))  # type: ignore[misc]
        close = abs(predicted - measured) <= TOLERANCE * measured
        assert close, f"on the meta device backward needs {predicted} bytes an image on {name}, on the CPU {measured}"


def check_gradients(op: Op[*Place], *place: *Place) -> None:
    """The gradient reaches every parameter and every input, and is finite."""
    module = _module(op, place)
    x = tree_map_only(Tensor, lambda t: t.requires_grad_(), example_inputs(op.kind, *place))
    _loss(module(*x)).backward()
    for name, tensor in [*module.named_parameters(), *((f"input {i}", t) for i, t in enumerate(_flat(x)))]:
        assert tensor.grad is not None, f"no gradient reaches {name}"
        assert tensor.grad.isfinite().all(), f"the gradient of {name} is not finite"
        assert tensor.grad.any(), f"the gradient of {name} is zero everywhere"


def check_gradcheck(op: Op[*Place], *place: *Place) -> None:
    """The gradient is the derivative: finite differences in float64, along random directions."""
    module = _module(op, place).double()
    x = _flat(example_inputs(op.kind, *place, batch=1, dtype=torch.float64))
    parameters = dict(module.named_parameters())
    leaves = [t.detach().clone().requires_grad_() for t in (*x, *parameters.values())]

    def run(*tensors: Tensor) -> Tensor:
        own = dict(zip(parameters, tensors[len(x) :], strict=True))
        args = (tensors[0], list(tensors[1 : len(x)])) if op.kind == "aggregator" else tensors[: len(x)]
        return torch.func.functional_call(module, own, args)

    try:
        torch.autograd.gradcheck(run, leaves, fast_mode=True)
    except GradcheckError as e:
        raise AssertionError(f"the gradient is not the derivative: {e}") from e


def check_batch(op: Op[*Place], *place: *Place) -> None:
    """In evaluation an image's result depends on that image alone, wherever it stands in the batch."""
    module, x = _module(op, place), example_inputs(op.kind, *place, batch=4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        whole, permuted = module(*x), module(*tree_map_only(Tensor, lambda t: t[order], x))
        alone = module(*tree_map_only(Tensor, lambda t: t[2:3], x))
    noise = 1e-5 * whole.abs().max().item()  # another batch may be summed in another order
    torch.testing.assert_close(permuted, whole[order], rtol=1e-4, atol=noise)
    torch.testing.assert_close(alone, whole[2:3], rtol=1e-4, atol=noise)


def check_deterministic(op: Op[*Place], *place: *Place) -> None:
    """In evaluation the same input gives the same bits, and the input stays as it was."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    before = copy.deepcopy(x)
    with torch.no_grad():
        assert torch.equal(module(*x), module(*x)), "two runs differ"
    same = all(torch.equal(a, b) for a, b in zip(_flat(x), _flat(before), strict=True))
    assert same, "the module writes into its input"


def check_overwrites(op: AnyOp, *place: Any) -> None:
    """An activation that may overwrite gives the same in its input's memory, where nobody else reads that; any other
    leaves its input alone."""
    if not isinstance(op, Act):
        return
    module, (x,) = _module(op, place), example_inputs(op.kind, *place)
    given = x.clone()
    with torch.no_grad():
        wanted, y = module(x), activate(module, given, own=True)
    overwritten = y.data_ptr() == given.data_ptr()
    assert overwritten is op.overwrites, f"overwrites is {op.overwrites}, whether it does is {overwritten}"
    assert torch.equal(y, wanted), "in its input's memory it gives another result"


def check_copies(op: Op[*Place], *place: *Place) -> None:
    """deepcopy, pickle and a state dict's round trip give the same module."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    fresh = build_on_maps(op, *place).eval()
    fresh.load_state_dict(module.state_dict())
    with torch.no_grad():
        y = module(*x)
        for how, other in (
            ("deepcopy", copy.deepcopy(module)),
            ("pickle", pickle.loads(pickle.dumps(module))),
            ("state_dict", fresh),
        ):
            assert torch.equal(other(*x), y), f"{how} gives another result"


def check_buffers(op: Op[*Place], *place: *Place) -> None:
    """Buffers that are not saved are computed again by `init_non_persistent_buffers`, as loaders call it that gave
    memory to a module from the meta device."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    fresh = build_on_maps(op, *place).to("meta").to_empty(device="cpu").eval()
    fresh.load_state_dict(module.state_dict())
    for name, part in fresh.named_modules():
        if not (computed := names_of_computed_buffers(part)):
            continue
        again = getattr(part, "init_non_persistent_buffers", None)
        assert callable(again), f"'{name}' has buffers that are not saved and no init_non_persistent_buffers()"
        for buffer in computed:
            part.get_buffer(buffer).fill_(1)
        again()
    with torch.no_grad():
        assert torch.equal(fresh(*x), module(*x)), "with its weights, a module from the meta device is another one"


def check_reset(op: Op[*Place], *place: *Place) -> None:
    """Given memory module by module, as FSDP does it, each starts its own parameters by `reset_parameters()`."""
    module, x = build_on_maps(op, *place).to("meta"), example_inputs(op.kind, *place)
    for name, part in module.named_modules():
        own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if not own:
            continue
        part.to_empty(device="cpu", recurse=False)
        with torch.no_grad():
            for parameter in part.parameters(recurse=False):
                parameter.fill_(torch.nan)
        reset: Any = getattr(part, "reset_parameters", None)
        assert callable(reset), f"'{name}' has parameters or buffers of its own and no reset_parameters()"
        reset()
    with torch.no_grad():
        assert module(*x).isfinite().all(), "after reset_parameters() it gives numbers that are not finite"


def check_parameters(op: AnyOp, *place: Any) -> None:
    """The parameters reload through the registry, from plain data, to an equal block."""
    plain = json.loads(json.dumps(op.parameters_dict()))
    again = registry.make(op.op, plain, op.kind)
    assert again == op, f"{plain} reloads to {again}"
    assert again.cost(*place) == op.cost(*place), "the reloaded block has another cost"


def check_training(op: Op[*Place], *place: *Place) -> None:
    """In training mode it runs forward and backward, as it was initialised, without losing a number."""
    module = build_on_maps(op, *place).train()
    x = tree_map_only(Tensor, lambda t: t.requires_grad_(), example_inputs(op.kind, *place))
    y = module(*x)
    assert tuple(y.shape) == _expected(op, place, 2), f"training mode gives {tuple(y.shape)}"
    assert y.isfinite().all(), "the initialised module gives numbers that are not finite"
    _loss(y).backward()
    finite = all(t.grad is not None and t.grad.isfinite().all() for t in (*module.parameters(), *_flat(x)))
    assert finite, "a gradient is missing or not finite"


def check_bfloat16(op: Op[*Place], *place: *Place) -> None:
    """It runs in bfloat16 and gives about what it gives in float32."""
    module, x = _module(op, place), example_inputs(op.kind, *place)
    with torch.no_grad():
        exact = module(*x)
        y = module.bfloat16()(*tree_map_only(Tensor, lambda t: t.bfloat16(), x))
    assert y.dtype == torch.bfloat16, f"bfloat16 gives {y.dtype}"
    error = ((y.float() - exact).norm() / exact.norm()).item()
    assert error < 0.1, f"bfloat16 is off by {error:.3f} of the result"


def check_sizes(op: AnyOp, *place: Any) -> None:
    """Built for one size and run at another it is what the same weights are that were built for that one, or it refuses
    in words. Where the size decides how many parameters there are, it gives the shape of the other size."""
    if op.kind == "join":
        return
    module, (height, width) = _module(op, place), place[0][:2]
    for size in ((height + 3, width + 1), (width, height), (2 * height + 1, 3), (3, 2 * width + 2), (height // 2, 2)):
        at = (place[0]._replace(height=size[0], width=size[1]), *place[1:])
        if not accepts(op, *at) or min(op.out_shape(*at)) < 1 or at[0].row == place[0].row:
            continue  # beside tokens a row does not tell how its positions lie
        x, other = example_inputs(op.kind, *at), build_on_maps(op, *at).eval()
        with torch.no_grad():
            try:
                y = module(*x)
            except OpError:
                continue
            assert tuple(y.shape) == _expected(op, at, 2), f"at {size} it gives {tuple(y.shape)}"
            state = module.state_dict()
            if {k: v.shape for k, v in other.state_dict().items()} != {k: v.shape for k, v in state.items()}:
                continue
            other.load_state_dict(state)
            wanted = other(*x)
        assert torch.allclose(y, wanted, rtol=1e-4, atol=1e-5), f"at {size} it is off by {(y - wanted).abs().max()}"


def check_tokens(op: Op[*Place], *place: *Place) -> None:
    """A block that treats extra tokens as `each` position treats all positions alike, wherever they stand."""
    if op.tokens_are() != "each":
        return
    module, x = _module(op, place), example_inputs(op.kind, *place)
    if len({t.shape[1:3] for t in _flat(x)}) > 1:
        return  # maps that are resized or spread to meet
    positions = max(t.shape[1] * t.shape[2] for t in _flat(x))
    order = torch.randperm(positions, generator=torch.Generator().manual_seed(2))

    def moved(t: Tensor) -> Tensor:
        return t.flatten(1, 2)[:, order].unflatten(1, t.shape[1:3]) if t.shape[1] * t.shape[2] == positions else t

    with torch.no_grad():
        y, of_moved = module(*x), module(*tree_map_only(Tensor, moved, x))
    torch.testing.assert_close(of_moved, moved(y), rtol=1e-4, atol=1e-5, msg=lambda m: f"positions differ: {m}")


def check_fed(op: AnyOp, *place: Any) -> None:
    """Behind an aggregator a mixer works at the width it asks for, and gives the map's own width."""
    if not isinstance(op, Mixer):
        return
    shape: Shape = place[0]
    fed, width = op.fed(shape.dim)
    out_shape = fed.out_shape(Shape(shape.height, shape.width, width))
    assert out_shape == shape, f"fed at width {width} it gives {out_shape}, not {shape}"
    if (fed, width) != (op, shape.dim):
        for check in CHECKS:
            if check is not check_fed:  # what is fed once is not fed again
                check(fed, Shape(shape.height, shape.width, width))


def check_head(op: Op[*Place], *place: *Place) -> None:
    """A head gives features before its classifier, and takes a new classifier."""
    if op.kind != "head":
        return
    module, x = _module(op, place), example_inputs(op.kind, *place)
    features = module(*x, pre_logits=True)
    assert features.ndim == 2, f"pre_logits gives {tuple(features.shape)}, not one row an image"
    reset: Any = module.reset
    reset(7)
    assert tuple(module(*x).shape) == (2, 7), f"after reset(7) it gives {tuple(module(*x).shape)}"
    reset(0)
    assert torch.equal(module(*x), features), "after reset(0) it does not give the features"


CHECKS: tuple[Callable[..., None], ...] = (
    check_costs,
    check_shape,
    check_workspace,
    check_training_memory,
    check_gradients,
    check_gradcheck,
    check_batch,
    check_deterministic,
    check_overwrites,
    check_copies,
    check_buffers,
    check_reset,
    check_layout,
    check_hooks,
    check_replaced,
    check_parametrized,
    check_parameters,
    check_training,
    check_checkpointing,
    check_bfloat16,
    check_sizes,
    check_tokens,
    check_fed,
    check_head,
    check_program,
    check_filter,
)
"""Every law, in the order in which `check_op` asks."""


def _module(op: Op[*Place], place: tuple[*Place]) -> nn.Module:
    """The module in evaluation mode, off its initial values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomise(build_on_maps(op, *place)).eval()


def _expected(op: Op[*Place], place: tuple[*Place], batch: int) -> tuple[int, ...]:
    shape = op.out_shape(*place)
    return (batch, shape.dim) if op.kind == "head" else (batch, *shape.row)


def _loss(y: Tensor) -> Tensor:
    """A sum with random weights: a plain sum hides what a final norm does."""
    return (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum()


def _flat(inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    return tuple(t for given in inputs for t in (given if isinstance(given, list) else [given]))
