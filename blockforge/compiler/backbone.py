"""The built model: a `torch.fx.GraphModule` with the surface that timm's users expect."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, fx, nn

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lower import build_modules, emit
from blockforge.compiler.modules import Layer
from blockforge.errors import BlockforgeError
from blockforge.spec.model import Spec


class FeatureInfo:
    """What the feature maps are: channels, reduction and module of each stage, as timm's class of the name."""

    def __init__(self, info: list[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info, self.out_indices = info, tuple(out_indices)

    def channels(self, idx: int | None = None) -> Any:
        """Channels of map `idx`, or of all that are returned."""
        return self._get("num_chs", idx)

    def reduction(self, idx: int | None = None) -> Any:
        """Stride of map `idx` to the image, or of all that are returned."""
        return self._get("reduction", idx)

    def module_name(self, idx: int | None = None) -> Any:
        """Path of the module that gives map `idx`, or of all that are returned."""
        return self._get("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One mapping for each map that is returned."""
        return [{k: v for k, v in self.info[i].items() if keys is None or k in keys} for i in self.out_indices]

    def _get(self, key: str, idx: int | None) -> Any:
        return self.info[idx][key] if idx is not None else [self.info[i][key] for i in self.out_indices]

    def __len__(self) -> int:
        return len(self.info)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.info[idx]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.info)


class Backbone(fx.GraphModule):
    """An image classifier, or with `features_only` a list of feature maps.

    `forward(x_BCHW)` gives logits_BK, or with `features_only` one map_BCHW for each of `out_indices`.
    `print(model.code)` is the network as Python.

    Attributes:
        arch: the graph it was built from, with shapes and costs.
        num_classes, num_features: outputs of the classifier, and channels of the last map.
        feature_info: channels, reduction and module of each stage's map.
    """

    arch: Architecture
    num_classes: int
    out_indices: tuple[int, ...] | None
    head: Any  # what the head's block builds, see `blocks.base.Head`

    @classmethod
    def from_architecture(cls, arch: Architecture, out_indices: Sequence[int] | None = None) -> Backbone:
        """Build the modules of `arch`, freshly initialised. `out_indices`: return these stages' maps instead of
        logits, and build no more than they need; negative ones count from the last stage."""
        stages = len(arch.plan.stages)
        maps = _indices(out_indices, stages) if out_indices is not None else None
        modules = build_modules(arch, with_head=maps is None, num_stages=max(maps) + 1 if maps else None)
        return _assemble(arch, modules, maps)

    @property
    def spec(self) -> Spec:
        """The spec it was built from."""
        return self.arch.spec

    @property
    def num_features(self) -> int:
        return self.arch.stage_shapes()[-1].dim

    head_hidden_size = num_features

    @property
    def feature_info(self) -> FeatureInfo:
        shapes, area = self.arch.stage_shapes(), math.prod(self.arch.plan.input.size)
        info = [
            {"num_chs": s.dim, "reduction": round(math.sqrt(area / s.positions)), "module": f"stages.{i}", "index": i}
            for i, s in enumerate(shapes)
        ]
        return FeatureInfo(info, range(len(info)) if self.out_indices is None else self.out_indices)

    def forward_features(self, x: Tensor) -> Tensor:
        """x_BCHW -> the last stage's map_BCHW, before the head."""
        self._needs_head("forward_features")
        return self._view((None, False))(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map_BCHW -> logits_BK, or with `pre_logits` what the classifier reads."""
        self._needs_head("forward_head")
        return self.head(x.permute(0, 2, 3, 1), pre_logits=pre_logits)

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, *, intermediates_only: bool = False
    ) -> Any:
        """The maps_BCHW of some stages, and the last map unless `intermediates_only`.

        Args:
            indices: stages; a number n means the last n; None: all.
        """
        stages = len(self.arch.plan.stages)
        chosen = (
            range(stages)[-indices:] if isinstance(indices, int) else indices if indices is not None else range(stages)
        )
        maps = _indices(chosen, stages)
        if intermediates_only:
            return self._view((maps, False))(x)
        found = self._view(((*maps, stages - 1), False))(x)
        return found[-1], found[:-1]

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives the logits."""
        self._needs_head("get_classifier")
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; with 0 classes the model returns pooled features."""
        from blockforge.compiler import compile_spec

        self._needs_head("reset_classifier")
        overrides: dict[str, Any] = {"num_classes": num_classes}
        if global_pool is not None:
            overrides["head.pool"] = global_pool
        self.arch = compile_spec(self.arch.spec, overrides)
        if global_pool is not None:
            self.head.pool = global_pool
        self.head.reset(num_classes)
        self.num_classes = num_classes

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must spare, beyond norms and biases: as the blocks declare."""
        found = set()
        for name, module in self.named_modules():
            declared: Any = getattr(module, "no_weight_decay", None)
            if name and callable(declared):
                found |= {f"{name}.{parameter}" for parameter in declared()}
        return found

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each layer in the backward pass instead of keeping what is inside it."""
        for module in self.modules():
            if isinstance(module, Layer):
                module.grad_checkpointing = enable

    def _needs_head(self, what: str) -> None:
        if self.out_indices is not None:
            raise BlockforgeError(f"{what} needs a whole model; this one was built with features_only")

    def _view(self, key: tuple[tuple[int, ...] | None, bool]) -> fx.GraphModule:
        """The same modules behind another graph: made once, never registered as a submodule."""
        views: dict[Any, fx.GraphModule] = self.__dict__.setdefault("_views", {})
        if key not in views:
            graph = emit(self.arch, maps=key[0], logits=key[1])
            views[key] = fx.GraphModule(_called(self, graph), graph, "Features")
        return views[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        modules = copy.deepcopy(_called(self, self.graph), memo)
        return _assemble(self.arch, modules, self.out_indices, self.training)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _assemble, (self.arch, _called(self, self.graph), self.out_indices, self.training)


def _assemble(
    arch: Architecture, modules: dict[str, nn.Module], maps: tuple[int, ...] | None, training: bool = True
) -> Backbone:
    """A model from modules by path; the graph follows from `arch`, so that it need not be stored."""
    model = Backbone(modules, emit(arch, maps, logits=maps is None), class_name="Backbone")
    model.arch, model.out_indices = arch, maps
    model.num_classes = arch.plan.num_classes if maps is None else 0
    model.training = training
    return model


def _called(model: nn.Module, graph: fx.Graph) -> dict[str, nn.Module]:
    """The modules that a graph calls, by path."""
    return {n.target: model.get_submodule(n.target) for n in graph.nodes if n.op == "call_module"}


def _indices(chosen: Sequence[int], stages: int) -> tuple[int, ...]:
    for index in chosen:
        if not -stages <= index < stages:
            raise BlockforgeError(
                f"there is no stage {index}; out_indices are 0 to {stages - 1}, or negative from the end"
            )
    return tuple(i % stages for i in chosen)
