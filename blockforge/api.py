"""The Python API: load, compile, build. Exported lazily from `blockforge`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from blockforge.capacity import need
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.feature_maps import stage_indices
from blockforge.compiler.lowering.out_norms import OutNorm
from blockforge.compiler.lowering.outputs import Outputs
from blockforge.spec import Spec, SpecLike, load

if TYPE_CHECKING:
    from collections.abc import Iterator

Overrides = Mapping[str, Any] | list[str] | None
compile = compile_spec


def build(
    source: SpecLike | Architecture,
    overrides: Overrides = None,
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    out_norm: OutNorm = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    check_memory: bool = True,
    device: str | torch.device | None = None,
) -> Backbone:
    """Build the model of a spec.

    Args:
        source: a zoo name, path, mapping, Spec, or a compiled Architecture.
        overrides: values to replace by path, `{"stages.2.depth": 12}`.
        num_classes, img_size, in_chans, drop_path_rate: as in timm; they override the spec's.
        features_only: return feature maps (B, C, H, W) in place of logits.
        out_indices: with `features_only`, the stages whose maps are returned: indices, negative ones from the end, or
            a number n for the last n; all by default.
        out_norm: with `features_only`, a norm behind each map, as official dense backbones have: `layer_norm`,
            `batch_norm` or any other as a spec names it, `{"op": "layer_norm", "eps": 1e-6}`; none by default. That
            of stage 2 is the module `out_norms.2`.
        weights: a file of weights to load (safetensors, or a checkpoint of torch that holds only tensors), or a
            `Weights`, which says where in it they are. With `features_only` what the maps do not need is left out,
            and a line names it.
        seed: makes the initialisation reproducible, without touching torch's global generator.
        check_memory: refuse a network whose parameters the default device can never hold; none are on `meta`.
        device: where its tensors are made; torch's default by default, the CPU unless it was changed. On "meta" they
            have no memory: `to_empty(device=...)` gives it, `load_state_dict` fills it.
    Returns:
        The model, in training mode.
    Raises:
        SpecError: if the spec is wrong. WeightsError: if the weights do not fit. CapacityError: too large. All are
        BlockforgeErrors, as is what is raised for stages that there are not.
    """
    arch = source if isinstance(source, Architecture) else None
    spec = load(arch.spec if arch is not None else source, overrides)  # type: ignore[arg-type]
    changes = _changes(spec, num_classes, img_size, in_chans, drop_path_rate)
    if arch is None or overrides or changes:
        form = arch.form if arch is not None else "trained"
        arch = compile_spec(spec, changes).in_form(form)
    if features_only or out_indices is not None:
        out_indices = stage_indices(out_indices, arch)
    with _seeded(seed), torch.device(device) if device is not None else contextlib.nullcontext():
        model = Backbone.from_architecture(arch, out_indices, check_memory, out_norm)
    if weights is not None:
        from blockforge.saving import load_weights

        load_weights(model, weights)
    return model


def from_official(
    source: SpecLike,
    state_dict: Mapping[str, Any],
    overrides: Overrides = None,
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> Backbone:
    """Build the model of a spec with weights in the layout of its family's official checkpoint.

    Args:
        source: any spec of the family.
        state_dict: the checkpoint, plain or wrapped (`model`, `state_dict`, `module.` prefixes, ...).
        key, prefix: which of its tensors, where that must be said: as `Weights`.
    Raises:
        WeightsError: if it is no layout that is known, or does not fit the spec.
    """
    from blockforge.weights import load_official

    model = build(source, overrides)
    load_official(model, state_dict, key, prefix)
    return model


def _changes(
    spec: Spec,
    num_classes: int | None,
    img_size: int | tuple[int, int] | None,
    in_chans: int | None,
    drop_path_rate: float | None,
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if num_classes is not None:
        changes["num_classes"] = num_classes
    if img_size is not None:
        changes["input.size"] = img_size if isinstance(img_size, int) else list(img_size)
    if in_chans is not None:
        changes["input.channels"] = in_chans
    if drop_path_rate is not None:
        constant = getattr(spec.drop_path, "constant", None) is not None  # it may be a hole or a reference
        changes["drop_path"] = {"constant": drop_path_rate} if constant else drop_path_rate
    return changes


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def check_forward(arch: Architecture, batch: int = 1) -> None:
    """Refuse a forward pass whose activations the default device can never hold. Raises: CapacityError."""
    side = " x ".join(map(str, arch.plan.input.size))
    what = f"{arch.name} keeps more at once in a pass of {batch} x {side} than there is memory"
    need(what, batch * arch.activation_bytes // 4, "a smaller input.size, or fewer images at a time")


def proof(model: Backbone, batch: int = 1) -> Outputs:
    """Run one forward pass on noise of the spec's own size, in evaluation mode."""
    size = model.arch.plan.input
    check_forward(model.arch, batch)
    was_training = model.training
    x = torch.randn(batch, size.channels, *size.size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            outputs: Outputs = model.eval()(x)
            return outputs
    finally:
        model.train(was_training)
