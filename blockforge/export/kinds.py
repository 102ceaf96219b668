"""What kind of network is exported: the type of its values, and what it gives."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import BlockforgeError

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference to the network's output, relative to the output's largest magnitude: what another order of sums
may change, for each type of values."""


class ExportError(BlockforgeError, ValueError):
    """A model that cannot be exported as asked, or whose export does not compute the same."""


def value_type(model: Backbone) -> torch.dtype:
    """The type of a network's parameters, which its images have too.

    Raises: ExportError for a network that is quantised, of several types, without values or not on the CPU.
    """
    name = model.arch.name
    for path, module in model.named_modules():
        kind = type(module)
        if "quant" in kind.__module__.partition("blockforge")[0]:
            where = f"{path} is {kind.__module__}.{kind.__name__}"
            raise ExportError(f"{name} is quantised ({where}), and cannot be exported{_QUANTISE}")
    for path, value in model.named_parameters():
        if type(value) not in (Tensor, torch.nn.Parameter) or type(value.data) is not Tensor:
            raise ExportError(f"{name} holds a {type(value.data).__name__} ({path}), and cannot be exported{_QUANTISE}")
        if value.is_meta:
            raise ExportError(f"{name} has no values ({path} is on the meta device)\n  hint: load its weights first")
        if value.device.type != "cpu":
            raise ExportError(f"{name} is on {value.device}; it is exported from the CPU\n  hint: model.cpu()")
    types = {value.dtype: path for path, value in model.named_parameters()}
    if len(types) != 1 or not types.keys() <= TOLERANCES.keys():
        listed = ", ".join(f"{_named(dtype)} ({path})" for dtype, path in types.items())
        raise ExportError(f"{name} holds {listed}; one type of floats is exported\n  hint: model.float()")
    return next(iter(types))


def output_names(model: Backbone) -> list[str]:
    """The names of what a network gives: `logits`, those of its `heads`, or `map_0`, `map_1`, ... by maps' stages."""
    if model.out_indices is None:
        return list(model.arch.heads) if model.arch.plan.names_outputs else ["logits"]
    return [f"map_{stage}" for stage in model.out_indices]


def as_list(outputs: Tensor | list[Tensor] | tuple[Tensor, ...] | dict[str, Tensor]) -> list[Tensor]:
    """What a network gives, one or several."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return list(outputs.values() if isinstance(outputs, dict) else outputs)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_QUANTISE = "\n  hint: export it in float32, and quantise the file: onnxruntime.quantization does"
