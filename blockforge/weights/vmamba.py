"""VMamba's official layout (github MzeroMiko/VMamba), and what of it other families share."""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.official import Family, register

SS2D = {
    "in_proj": "op.in_proj",
    "conv": "op.conv2d",
    "out_norm": "op.out_norm",
    "out_proj": "op.out_proj",
}
_SCANS = {"x_proj.weight": "x_proj_weight", "dt_bias": "dt_projs_bias", "A_log": "A_logs", "D": "Ds"}
_LAYER = {
    "ss2d.norm": "norm",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
}
_TOP = {"head.norm": "classifier.norm", "head.fc": "classifier.head"}
_STEM = {"0": "0", "1": "2", "3": "5", "4": "7"}
_DOWNSAMPLE = {"0": "1", "1": "3"}


def prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of all directions of a scan with the direction as the first axis; the steps' weights apart."""
    prepared = dict(state)
    for key, dt_weight in state.items():
        if not key.endswith(".dt_projs_weight"):
            continue
        owner, directions = key.removesuffix("dt_projs_weight"), dt_weight.shape[0]
        del prepared[key]
        prepared |= {f"{owner}dt_projs_weight.{k}": w for k, w in enumerate(dt_weight)}
        for name in ("A_logs", "Ds"):
            if (value := state.get(owner + name)) is not None and value.shape[0] % directions == 0:
                prepared[owner + name] = value.unflatten(0, (directions, -1))
        if (value := state.get(f"{owner}x_proj_weight")) is not None:
            prepared[f"{owner}x_proj_weight"] = value.reshape(-1, dt_weight.shape[1])
    return prepared


def ss2d_source(name: str) -> str | None:
    """The official name, inside a layer, of a tensor of our SS2D."""
    if name in _SCANS:
        return f"op.{_SCANS[name]}"
    if match := re.fullmatch(r"dt_proj\.(\d+)\.weight", name):
        return f"op.dt_projs_weight.{match[1]}"
    owner, _, leaf = name.rpartition(".")
    return f"{SS2D[owner]}.{leaf}" if owner in SS2D else None


def _sources(key: str) -> tuple[str, ...] | None:
    """Our key -> official keys."""
    owner, _, leaf = key.rpartition(".")
    if owner in _TOP:
        return (f"{_TOP[owner]}.{leaf}",)
    if (match := re.fullmatch(r"stem\.(\d)", owner)) and match[1] in _STEM:
        return (f"patch_embed.{_STEM[match[1]]}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.downsample\.(\d)", owner):
        return (f"layers.{int(match[1]) - 1}.downsample.{_DOWNSAMPLE[match[2]]}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.layers\.(\d+)\.(.+)", key):
        block, name = f"layers.{match[1]}.blocks.{match[2]}", match[3]
        if name.startswith("ss2d.op."):
            source = ss2d_source(name.removeprefix("ss2d.op."))
            return (f"{block}.{source}",) if source else None
        part, _, leaf = name.rpartition(".")
        return (f"{block}.{_LAYER[part]}.{leaf}",) if part in _LAYER else None
    return None


VMAMBA = register(
    Family(
        "vmamba",
        lambda keys: {"layers.0.blocks.0.op.A_logs", "classifier.head.weight"} <= keys,
        _sources,
        prepare=prepare,
    )
)
