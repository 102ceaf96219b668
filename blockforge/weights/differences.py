"""By what a checkpoint may differ from a model of feature maps that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from blockforge.compiler import compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.out_norms import out_norm_path

_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class AllowedDifferences:
    """Tensors under our names.

    Attributes:
        spare: what the checkpoint may hold though the model has no place for it: the head, later stages, output norms.
        out_norms: those of `spare` that are output norms, if the model has none.
        fresh: the model's own that the checkpoint may lack, all of them or none: its output norms.
    """

    spare: tuple[str, ...] = ()
    out_norms: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def asked(self, own: Mapping[str, Tensor], held: Callable[[str], bool]) -> dict[str, Tensor]:
        """What of a model's state dict a checkpoint must hold. `held`: whether it holds a tensor."""
        left = () if any(held(name) for name in self.fresh) else self.fresh
        return {name: value for name, value in own.items() if name not in left}


NONE = AllowedDifferences()


def allowed_differences(model: Backbone) -> AllowedDifferences:
    """By what a checkpoint of this model may differ: by nothing if the model is whole."""
    if model.out_indices is None:
        return NONE
    arch = compile_spec(model.arch.spec, {"num_classes": model.arch.plan.num_classes or 1})
    with torch.device("meta"):
        whole = Backbone.from_architecture(arch, check_memory=False)
    own = model.state_dict()
    normed = model.out_indices if model.out_norm is not None else ()
    fresh = tuple(f"{out_norm_path(i)}.{name}" for i in dict.fromkeys(normed) for name in _TENSORS)
    others = (i for i in range(len(model.arch.plan.stages)) if i not in normed)
    norms = tuple(f"{out_norm_path(i)}.{name}" for i in others for name in _TENSORS)
    spare = (*(name for name in whole.state_dict() if name not in own), *norms)
    return AllowedDifferences(spare, () if normed else norms, tuple(name for name in fresh if name in own))
