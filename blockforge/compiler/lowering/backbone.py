"""The built model: a `torch.fx.GraphModule` with the surface that timm's users expect."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, fx, nn

import blockforge
from blockforge.blocks.base import Norm
from blockforge.blocks.compose.head import WITHOUT_LOGITS
from blockforge.blocks.compose.program import Step
from blockforge.capacity import need
from blockforge.compiler.graph.units import Unit
from blockforge.compiler.lowering.feature_maps import FeatureInfo, stage_indices
from blockforge.compiler.lowering.lower import build_modules, emit, emit_head, needed_units
from blockforge.compiler.lowering.modules import Layer
from blockforge.compiler.lowering.new_classes import reset
from blockforge.compiler.lowering.out_norms import OutNorm, build_out_norms, out_norm_op
from blockforge.errors import BlockforgeError
from blockforge.spec.model import Spec
from blockforge.units import format_count

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture


class Backbone(fx.GraphModule):
    """A network from images to classes or maps, or with `features_only` to a list of feature maps.

    `forward(x_BCHW)` gives logits_BK, or of a head that ends in a map logits_BKHW; of several `heads` a dict of these
    by name, the main one first; with `features_only` one map_BCHW for each of `out_indices`. What timm's interface says
    of the head is the main one's.
    `print(model.code)` is the network as Python.

    Attributes:
        arch: the graph it was built from, with shapes and costs.
        in_chans, num_classes, num_features: channels of the image, outputs of the classifier, channels of the last map.
        feature_info: channels, reduction and module of each stage's map.
        out_norm: the norm behind each map, the modules `out_norms.0` and so on; None: the maps are the stages' own.
        classes: names of the classifier's outputs, if it was trained or loaded with some.
        pooled: False after `reset_classifier(0, "")`: the model gives what the head reads in place of logits.

    Further attributes that hold plain data (timm sets `pretrained_cfg`) are kept by copies and pickles.
    """

    arch: Architecture
    in_chans: int
    num_classes: int
    out_indices: tuple[int, ...] | None
    out_norm: Norm | None
    pooled: bool
    classes: tuple[str, ...] | None = None
    head: Any  # what the head's block builds, see `blocks.base.Head`; several are below `heads`
    _no_split_modules = (Layer.__name__,)  # what FSDP wraps, by the name that accelerate looks for
    _of_its_own: frozenset[str]

    @classmethod
    def from_architecture(
        cls,
        arch: Architecture,
        out_indices: int | Sequence[int] | None = None,
        check_memory: bool = True,
        out_norm: OutNorm = None,
    ) -> Backbone:
        """Build the modules of `arch`, freshly initialised.

        Args:
            out_indices: return these stages' maps instead of logits, and build no more than they need; negative ones
                count from the last stage, and a number n means the last n.
            check_memory: refuse parameters that the device can never hold.
            out_norm: a norm behind each of these maps, as specs name one.
        Raises: BlockforgeError for stages that there are not, and for what is no norm. CapacityError.
        """
        norm = out_norm_op(out_norm)
        if norm is not None and out_indices is None:
            raise BlockforgeError("out_norm is for feature maps\n  hint: features_only=True, or out_indices")
        maps = stage_indices(out_indices, arch) if out_indices is not None else None
        if check_memory:
            _check_memory(arch, maps)
        modules = build_modules(arch, maps)
        return _assemble(arch, {**modules, **build_out_norms(arch, norm, maps or ())}, maps, out_norm=norm)

    @property
    def spec(self) -> Spec:
        """The spec it was built from."""
        return self.arch.spec

    @property
    def num_features(self) -> int:
        return sum(unit.last.out_shape.dim for unit in self.arch.read_by(self.arch.main_head))

    head_hidden_size = num_features

    @property
    def feature_info(self) -> FeatureInfo:
        info = [
            {"num_chs": end.out_shape.dim, "reduction": end.reduction, "module": f"stages.{i}", "index": i}
            for i, end in enumerate(stage.end.last.shapes for stage in self.arch.stages)
        ]
        return FeatureInfo(info, self._held if self.out_indices is None else self.out_indices)

    @property
    def _held(self) -> tuple[int, ...]:
        """The stages of the network's features that the model was built with: a classifier goes without those that only
        `features` name."""
        built = {unit.name for unit in needed_units(self.arch, self.out_indices)}
        return tuple(i for i in self.arch.features if self.arch.stages[i].end.name in built)

    def train(self, mode: bool = True) -> Self:
        """As torch's. Raises: BlockforgeError for a deployed model, which has no form for training."""
        if mode and self.arch.trained is not None:
            text = (
                f"{self.arch.name} is deployed: its norms are a part of its convolutions, and nothing is left to train"
            )
            raise BlockforgeError(f"{text}\n  hint: train the model it was made of, then deploy that")
        return super().train(mode)

    def forward_features(self, x: Tensor) -> Any:
        """x_BCHW -> what the head reads: the last stage's map_BCHW, or what its `from` names, of several a list; with
        tokens beside it the row of both, x_BC1L."""
        self._needs_head("forward_features")
        return self._view(None, self.arch.read_by(self.arch.main_head))(x)

    def forward_head(self, x: Any, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gives -> logits_BK, of a map logits_BKHW; with `pre_logits` what the classifier
        reads.

        Raises: BlockforgeError for `pre_logits` of a head whose classifiers are on its edges.
        """
        self._needs_head("forward_head")
        *edges, _ = self.arch.units_of(self.arch.main_head)
        if pre_logits and any(step.classifies for unit in edges for step in _steps(unit)):
            hint = "forward_features gives what it reads"
            raise BlockforgeError(f"the head of {self.arch.name} has its classifiers before its join\n  hint: {hint}")
        view = self._viewed(("head", pre_logits), lambda: emit_head(self.arch, pre_logits))
        y: Tensor = view(*(x if isinstance(x, list | tuple) else [x]))
        return y

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps_BCHW of some stages, and before them what `forward_features` gives unless `intermediates_only`.

        Args:
            indices: stages; a number n means the last n; None: all features that the model was built with.
            return_prefix_tokens: instead of each map (map_BCHW, tokens_BEC) with the E tokens beside it.
            norm, output_fmt: as timm calls them; the maps come as NCHW, without the head's norm.
            stop_early: the last map is that of the last stage asked for; no later one runs.
        """
        if norm or output_fmt != "NCHW":
            raise BlockforgeError(f"maps come as NCHW and without the head's norm, not norm={norm}, {output_fmt}")
        maps = stage_indices(self._held if indices is None else indices, self.arch)
        if intermediates_only:
            return self._view(maps, (), return_prefix_tokens)(x)
        last = (self.arch.stages[max(maps)].end,) if stop_early else self.arch.read_by(self.arch.main_head)
        return self._view(maps, last, return_prefix_tokens)(x)

    def features(self, out_indices: int | Sequence[int] | None = None) -> Backbone:
        """A model with `features_only` made of this one's own modules, output norms included: of stages
        `out_indices`, all that it has by default."""
        maps = stage_indices(self._held if out_indices is None else out_indices, self.arch)
        modules = _called(self, emit(self.arch, maps, logits=False, out_norm=self.out_norm))
        return _assemble(self.arch, modules, maps, self.training, notes=self._notes(), out_norm=self.out_norm)

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives the logits."""
        self._needs_head("get_classifier")
        classifier: nn.Module = self._main_head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, of several heads all; with 0 classes the model returns pooled features.

        Args:
            global_pool: another pooling of the main head; "": none, the model returns its last map_BCHW, before the
                head.
        """
        self._needs_head("reset_classifier")
        if self.arch.trained is not None:
            text = f"{self.arch.name} is deployed: its classifier may hold a norm, or stand for several"
            raise BlockforgeError(f"{text}\n  hint: reset that of the model it was made of, then deploy that")
        pooled = bool(global_pool) if global_pool is not None else self.pooled
        if num_classes and not pooled:
            raise BlockforgeError(
                f"{num_classes} classes need pooled features\n  hint: global_pool='avg', or 0 classes"
            )
        heads: list[Any] = [self.get_submodule(unit.name) for unit in self.arch.heads.values()]
        if global_pool and not hasattr(heads[0], "pool"):
            raise BlockforgeError(f"the head of {self.arch.name} has no pooling that {global_pool!r} could replace")
        if not pooled and (self.arch.plan.names_outputs or len(self.arch.read_by(self.arch.main_head)) > 1):
            what = "gives a mapping of heads by name" if self.arch.plan.names_outputs else "has a head of several maps"
            raise BlockforgeError(f"{self.arch.name} {what}\n  hint: forward_features gives what the main one reads")
        overrides: dict[str, Any] = {"num_classes": num_classes}
        if global_pool:
            overrides[f"{self.arch.plan.heads[0].op_path}.pool"] = global_pool
        arch = blockforge.compile(self.arch.spec, overrides)
        _check_memory(arch)
        replaced = [reset(self, unit, num_classes) for unit in arch.units if unit.first.site.output is not None]
        if not any(replaced):
            raise BlockforgeError(WITHOUT_LOGITS)
        self.arch = arch
        if global_pool:
            heads[0].pool = global_pool
        self.num_classes, self.classes = num_classes, None
        self.__dict__.pop("_views", None)
        if pooled != self.pooled:
            self.pooled, self.graph = pooled, _whole(self.arch, pooled)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must spare, beyond norms and biases: as the blocks declare."""
        names = set()
        for name, module in self.named_modules():
            declared: Any = getattr(module, "no_weight_decay", None)
            if name and callable(declared):
                names |= {f"{name}.{parameter}" for parameter in declared()}
        return names

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters share a step of layer-wise learning rate decay, as timm reads it: the stem, each layer
        with what leads to it, the head. `coarse`: each stage as a whole."""
        if coarse:
            return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^skips\.\d+\.(\d+)", None)]}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.(?:from_\d+|join|downsample)", (0,)),
                (r"^skips\.\d+\.(\d+)", (0,)),
                (r"^stages\.(\d+)\.layers\.(\d+)", None),
                (r"^stages\.(\d+)\.norm", (99999,)),  # timm's number for: as the group before
            ],
        }

    def init_non_persistent_buffers(self) -> None:
        """Compute again, in every module, the buffers that no file of weights holds: positions, masks, rotations.

        `to`, `to_empty` and a first forward pass do so by themselves; timm and transformers call this after loading."""
        for name, module in self.named_modules():
            if name and callable(again := getattr(module, "init_non_persistent_buffers", None)):
                again()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each layer in the backward pass instead of keeping what is inside it."""
        for module in self.modules():
            if isinstance(module, Layer):
                module.grad_checkpointing = enable

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> str | None:
        """Write the folder of `save_model` with a `config.json` and a model card, as huggingface_hub's mixin does;
        it also names the further arguments."""
        return blockforge.save_pretrained(self, save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload what `save_pretrained` writes; the arguments are those of huggingface_hub's mixin."""
        return blockforge.push_to_hub(self, repo_id, **kwargs)

    @staticmethod
    def from_pretrained(folder_or_repo: str | os.PathLike[str], **kwargs: Any) -> Backbone:
        """See `blockforge.from_pretrained`."""
        return blockforge.from_pretrained(folder_or_repo, **kwargs)

    def _needs_head(self, what: str) -> None:
        if self.out_indices is not None:
            raise BlockforgeError(f"{what} needs a whole model; this one was built with features_only")

    @property
    def _main_head(self) -> Any:
        return self.get_submodule(self.arch.main_head.name)

    def _view(
        self, maps: tuple[int, ...] | None, beside: tuple[Unit, ...] = (), tokens: bool = False
    ) -> fx.GraphModule:
        """The same modules behind another graph of maps."""
        key = (maps, tokens, *(unit.name for unit in beside))
        return self._viewed(key, lambda: emit(self.arch, maps, logits=False, beside=beside, tokens=tokens))

    def _viewed(self, key: Any, make: Callable[[], fx.Graph]) -> fx.GraphModule:
        """The same modules behind another graph: made once, never registered as a submodule."""
        views: dict[Any, fx.GraphModule] = self.__dict__.setdefault("_views", {})
        if key not in views:
            graph = make()
            views[key] = fx.GraphModule(_called(self, graph), graph, "Features")
        views[key]._modules = self._modules  # what stands there now, should something have been replaced since
        return views[key]

    def _parts(self) -> dict[str, nn.Module]:
        """Every module by path, the head of a model that does not pool included."""
        graph = emit(self.arch, self.out_indices, logits=self.out_indices is None, out_norm=self.out_norm)
        return _called(self, graph)

    def in_form(self, arch: Architecture, made: Callable[[str, nn.Module], nn.Module]) -> Backbone:
        """A model of another form of this network: of what is made of each module and its path."""
        modules = {path: made(path, module) for path, module in self._parts().items()}
        return _assemble(arch, modules, self.out_indices, self.training, self.pooled, self._notes(), self.out_norm)

    def _notes(self) -> dict[str, Any]:
        """The plain data that others have set on the model."""
        return {k: v for k, v in vars(self).items() if k not in self._of_its_own and isinstance(v, _PLAIN)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        modules, notes = copy.deepcopy((self._parts(), self._notes()), memo)
        return _assemble(self.arch, modules, self.out_indices, self.training, self.pooled, notes, self.out_norm)

    def __reduce_ex__(self, protocol: Any) -> Any:
        own = (self.arch, self._parts(), self.out_indices, self.training, self.pooled, self._notes(), self.out_norm)
        return _assemble, own


def _steps(unit: Unit) -> tuple[Step, ...]:
    """The parts of a unit that is one composed block."""
    return unit.last.program.steps if unit.last.program is not None else ()


_PLAIN = (bool, int, float, str, tuple, list, dict, type(None))


def _assemble(
    arch: Architecture,
    modules: dict[str, nn.Module],
    maps: tuple[int, ...] | None,
    training: bool = True,
    pooled: bool = True,
    notes: Mapping[str, Any] | None = None,
    out_norm: Norm | None = None,
) -> Backbone:
    """A model from modules by path; the graph follows from `arch`, so that it need not be stored."""
    model = Backbone(modules, emit(arch, maps, logits=maps is None, out_norm=out_norm), class_name="Backbone")
    model.arch, model.out_indices, model.out_norm, model.pooled = arch, maps, out_norm, pooled
    model.in_chans = arch.plan.input.channels
    model.num_classes = arch.plan.num_classes if maps is None else 0
    model.training = training
    if arch.trained is not None:
        model.eval()
    if not pooled:
        model.graph = _whole(arch, pooled)
    model._of_its_own = frozenset(("_of_its_own", "_views", *vars(model)))
    vars(model).update(notes or {})
    return model


def _whole(arch: Architecture, pooled: bool) -> fx.Graph:
    """The graph of a model that gives no maps: with its heads, or what the main one reads."""
    return emit(arch) if pooled else emit(arch, logits=False, beside=arch.read_by(arch.main_head))


def _called(model: nn.Module, graph: fx.Graph) -> dict[str, nn.Module]:
    """The modules that a graph calls, by path. Raises: BlockforgeError if the model was built without one."""
    names = [n.target for n in graph.nodes if n.op == "call_module"]
    try:
        return {name: model.get_submodule(name) for name in names}
    except AttributeError:
        held = {name for name, _ in model.named_modules()}
        lacking = next(name for name in names if name not in held)
        hint = "features_only=True builds what the network's features need, out_indices says which"
        raise BlockforgeError(f"the model was built without {lacking}\n  hint: {hint}") from None


def _check_memory(arch: Architecture, maps: Sequence[int] | None = None) -> None:
    """Refuse more parameters than the device holds. `maps`: of what these stages' maps need. Raises: CapacityError."""
    count = sum(unit.params for unit in needed_units(arch, maps))
    hint = f"blockforge show {arch.name} says where they are; check_memory=False builds it all the same"
    need(f"{arch.name} has {format_count(count)} parameters", count, hint)
