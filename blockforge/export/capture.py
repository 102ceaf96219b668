"""A built model as a graph of torch's own operators, through `torch.export`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import OpError
from blockforge.export.kinds import ExportError, value_type

Axis = Literal["batch", "hw"]
"""What may vary from call to call: the number of images, or their height and width."""
BATCH: tuple[Axis, ...] = ("batch",)


def images(model: Backbone, batch: int, size: tuple[int, int] | None = None) -> Tensor:
    """Noise, the same on every call, in the model's type: x_BCHW, by default of the spec's size."""
    planned = model.arch.plan.input
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, planned.channels, *(size or planned.size), generator=generator).to(value_type(model))


def other_sizes(model: Backbone) -> list[tuple[int, int]]:
    """Two sizes beside the spec's: the graph is captured at the first, so that nothing in it rests on the
    spec's own size, and compared at all three."""
    stride = stride_of(model)
    rows, columns = (-(-side // stride) for side in model.arch.plan.input.size)
    return [((rows + 2) * stride, (columns + 1) * stride), ((rows + 1) * stride, (columns + 3) * stride)]


def stride_of(model: Backbone) -> int:
    """Pixels a side of a position in the coarsest map. Dynamic sides are multiples of it: sizes of maps are then
    products, and torch need not reason about nested roundings."""
    return max(info["reduction"] for info in model.feature_info)


def capture(model: Backbone, dynamic: Collection[Axis] = BATCH) -> ExportedProgram:
    """The model's graph in evaluation mode, as it stands on the CPU.

    Raises: ExportError if the architecture holds for one image size and `dynamic` asks for `hw`, or the model is of
        a kind that cannot be exported.
    """
    size = None
    if (dtype := value_type(model)) != torch.float32:
        _runs_in(model, dtype)
    if "hw" in dynamic:
        size = other_sizes(model)[0]
        _runs_at(model, size)
    batch = 2 if "batch" in dynamic else 1  # torch takes a 1 for a size that never varies
    sizes: dict[int, Any] = {0: Dim("batch", min=1)} if "batch" in dynamic else {}
    if "hw" in dynamic:
        stride = stride_of(model)
        sizes |= {2: stride * Dim("rows", min=2, max=4096), 3: stride * Dim("columns", min=2, max=4096)}
    with evaluating(model):
        example = (images(model, batch, size),)
        try:
            program = torch.export.export(model, example, dynamic_shapes=(sizes or None,), strict=False)
        except OpError as e:
            raise _fixed(model, str(e)) from None
    shape = input_shape(program)
    if "hw" in dynamic and any(isinstance(side, int) for side in shape[2:]):
        raise _fixed(model, "something in it computes with the size")
    return program


@contextmanager
def evaluating(model: Backbone) -> Iterator[None]:
    """Evaluation mode without gradients; the model's own mode comes back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def input_shape(program: ExportedProgram) -> tuple[Any, ...]:
    """The shape that a program takes: numbers, and symbols where it may vary."""
    name = program.graph_signature.user_inputs[0]
    node = next(n for n in program.graph.nodes if n.name == name)
    return tuple(s if isinstance(s, int) else s.node.expr for s in node.meta["val"].shape)


def _runs_in(model: Backbone, dtype: torch.dtype) -> None:
    """Raise what an operator says that has no such type on a CPU."""
    try:
        with evaluating(model):
            model(images(model, 1))
    except (RuntimeError, NotImplementedError, TypeError) as e:
        first = str(e).strip().partition("\n")[0][:200]
        named = str(dtype).removeprefix("torch.")
        raise ExportError(f"{model.arch.name} does not run in {named} here: {first}\n  hint: model.float()") from None


def _runs_at(model: Backbone, size: tuple[int, int]) -> None:
    """Raise what a block says that was built for one size."""
    try:
        with evaluating(model):
            model(images(model, 1, size))
    except OpError as e:
        raise _fixed(model, str(e)) from None


def _fixed(model: Backbone, why: str) -> ExportError:
    height, width = model.arch.plan.input.size
    return ExportError(
        f"{model.arch.name} cannot be exported with dynamic height and width: {why}\n"
        f"  hint: leave hw out of --dynamic: it then takes images of {height}x{width}; --set input.size gives another"
    )
