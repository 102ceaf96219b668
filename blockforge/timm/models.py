"""The entry points that timm calls, and what becomes of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, register_notrace_module
from torch import Tensor, nn

from blockforge.api import build
from blockforge.compiler import compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.zoo import compiled_zoo
from blockforge.errors import BlockforgeError, did_you_mean
from blockforge.integrations.pretrained_cfg import pretrained_cfg
from blockforge.spec import SpecLike
from blockforge.weights.differences import allowed_differences
from blockforge.weights.mismatch import MismatchError
from blockforge.weights.official import fitted, unwrap
from blockforge.weights.resize import resizers
from blockforge.weights.sizes import hint_of_size

_PARAMETERS = (
    "num_classes", "in_chans", "img_size", "drop_path_rate", "drop_rate", "global_pool", "overrides", "seed", "device",
    "dtype",
)  # fmt: skip


def register_zoo(module: str, default_cfgs: dict[str, Any]) -> None:
    """Register every zoo spec as a model of `module`, and the model `blockforge` that takes a spec."""
    zoo = compiled_zoo()
    names = {f"bf_{name}": name for name in zoo}
    default_cfgs.update(generate_default_cfgs({f"bf_{name}": pretrained_cfg(arch) for name, arch in zoo.items()}))
    for name, spec in names.items():
        register_model(_entry_point(module, name, spec))
    register_model(_any_spec(module))


def _entry_point(module: str, name: str, spec: str) -> Callable[..., Any]:
    def create(pretrained: bool = False, **kwargs: Any) -> Any:
        return _create(name, spec, pretrained, kwargs)

    create.__name__ = create.__qualname__ = name
    create.__module__, create.__doc__ = module, f"The spec {spec} of BlockForge's zoo."
    return create


def _any_spec(module: str) -> Callable[..., Any]:
    def blockforge(pretrained: bool = False, spec: SpecLike | None = None, **kwargs: Any) -> Any:
        """Any spec: the path of a YAML file, a zoo name, or a mapping."""
        if spec is None:
            raise BlockforgeError(
                "the model 'blockforge' needs a spec\n  hint: create_model('blockforge', spec='a.yaml')"
            )
        own_cfg = kwargs.pop("pretrained_cfg", None)
        cfg = own_cfg if isinstance(own_cfg, Mapping) else pretrained_cfg(compile_spec(spec, kwargs.get("overrides")))
        return _create("blockforge", spec, pretrained, {**kwargs, "pretrained_cfg": dict(cfg)})

    blockforge.__qualname__, blockforge.__module__ = "blockforge", module
    return blockforge


def _create(name: str, spec: SpecLike, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    """What timm's own entry points do: build, load weights, perhaps keep the maps alone."""
    features_only = kwargs.pop("features_only", False)
    out_indices = kwargs.pop("out_indices", None) if features_only else None
    out_norm, getter = kwargs.pop("out_norm", None), kwargs.pop("feature_cls", None)
    if getter not in (None, "getter"):
        raise BlockforgeError(f"feature_cls={getter!r} is not for this model\n  hint: leave it out, or 'getter'")
    if out_norm is not None and getter is not None:
        raise BlockforgeError("timm's wrapper puts no norms behind maps\n  hint: leave feature_cls out")
    if features_only and getter is not None:
        kwargs["feature_cfg"] = {"feature_cls": getter, "out_indices": _stages(spec, out_indices)}
    maps = {"features_only": features_only and getter is None, "out_norm": out_norm}
    if maps["features_only"]:
        maps["out_indices"] = out_indices

    def make(**arguments: Any) -> Backbone:
        return _model(name, spec, arguments, maps)

    model = build_model_with_cfg(
        make,
        name,
        pretrained,
        pretrained_filter_fn=_our_names,
        features_only=features_only and getter is not None,
        **kwargs,
    )
    return _with_cfg_of_maps(model) if maps["features_only"] else model


def _stages(spec: SpecLike, out_indices: Any) -> Any:
    return out_indices if out_indices is not None else compile_spec(spec).features


def _model(name: str, spec: SpecLike, arguments: dict[str, Any], maps: Mapping[str, Any]) -> Backbone:
    """The model of timm's arguments, and of `build`'s that say which maps it gives."""
    if unknown := sorted(set(arguments) - set(_PARAMETERS)):
        raise BlockforgeError(f"{name} takes no '{unknown[0]}'\n  hint: {did_you_mean(unknown[0], _PARAMETERS)}")
    drop_rate = arguments.pop("drop_rate", 0.0)
    if not 0 <= drop_rate < 1:
        raise BlockforgeError(f"drop_rate={drop_rate} is not a share of the features\n  hint: from 0 to below 1")
    device, dtype = arguments.pop("device", None), arguments.pop("dtype", None)
    pool = arguments.pop("global_pool", None)
    model = build(spec, **arguments, **maps)
    if pool is not None and model.out_indices is None:
        model.reset_classifier(model.num_classes, pool)
    if drop_rate and model.out_indices is None:
        heads = [model.get_submodule(unit.name) for unit in model.arch.heads.values()]
        if not (able := [head for head in heads if hasattr(head, "drop_rate")]):
            raise BlockforgeError(f"the head of {name} has no dropout before its classifier\n  hint: drop_path_rate")
        for head in able:
            head.drop_rate = drop_rate
    for node in model.graph.find_nodes(op="call_module"):
        _one_call(model.get_submodule(str(node.target)))
    return model.to(device=device, dtype=dtype)


def _one_call(module: nn.Module) -> None:
    """Tell timm's tracers to leave a module whole, as the model's own graph does: blocks ask for sizes."""
    if isinstance(module, nn.Sequential):
        for child in module:
            _one_call(child)
    elif not type(module).__module__.startswith("torch."):
        register_notrace_module(type(module))


def _with_cfg_of_maps(model: Backbone) -> Backbone:
    """A model of feature maps that timm has made, without what is said of a classifier."""
    cfg: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    kept = {k: v for k, v in cfg.items() if k not in ("num_classes", "classifier", "global_pool")}
    vars(model).update(pretrained_cfg=kept, default_cfg=kept)
    return model


def _our_names(state: Mapping[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """What a checkpoint of this architecture, ours or official, has for a model, whatever its classes and channels:
    timm fits these."""
    cfg: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    overrides = {"num_classes": cfg["num_classes"], "input.channels": cfg["input_size"][0]}
    own = build(model.spec, overrides, out_indices=model.out_indices, out_norm=model.out_norm).state_dict()
    try:
        allowed = allowed_differences(model)
        tensors = fitted(unwrap(state), own, allowed, resizers(model))
    except MismatchError as e:
        hint = f"{e.hint} (pretrained_cfg_overlay: num_classes, input_size)" if e.hint else hint_of_size(model.arch, e)
        raise MismatchError(e.differences, hint) from None
    return {**{k: v for k, v in model.state_dict().items() if k in allowed.fresh}, **tensors}
