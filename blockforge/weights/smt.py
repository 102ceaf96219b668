"""SMT's official layout (github AFeng-x/SMT)."""

from __future__ import annotations

import re

from blockforge.weights.official import Family, register

_LAYER = {
    "sam.norm": ("norm1",),
    "sam.scale": ("gamma_1",),
    "sam.op.v": ("attn.v",),
    "sam.op.s": ("attn.s",),
    "sam.op.mix": ("attn.proj0",),
    "sam.op.bn": ("attn.bn",),
    "sam.op.gather": ("attn.proj1",),
    "sam.op.proj": ("attn.proj",),
    "attention.norm": ("norm1",),
    "attention.scale": ("gamma_1",),
    "attention.op.qkv": ("attn.q", "attn.kv"),
    "attention.op.local_conv": ("attn.local_conv",),
    "attention.op.proj": ("attn.proj",),
    "conv_mlp.norm": ("norm2",),
    "conv_mlp.scale": ("gamma_2",),
    "conv_mlp.op.fc1": ("mlp.fc1",),
    "conv_mlp.op.dwconv": ("mlp.dwconv.dwconv",),
    "conv_mlp.op.fc2": ("mlp.fc2",),
}
_STEM = {"0": "conv.0", "1": "conv.1", "3": "conv.3", "4": "norm"}
_DOWNSAMPLE = {"0": "proj", "1": "norm"}


def _sources(key: str) -> tuple[str, ...] | None:
    """Our key -> official keys."""
    owner, _, leaf = key.rpartition(".")
    if owner == "head.fc":
        return (f"head.{leaf}",)
    if match := re.fullmatch(r"stem\.(\d)", owner):
        return (f"patch_embed1.{_STEM[match[1]]}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.(.+)", owner):
        stage, rest = int(match[1]) + 1, match[2]
        if rest == "norm":
            return (f"norm{stage}.{leaf}",)
        if match := re.fullmatch(r"downsample\.(\d)", rest):
            return (f"patch_embed{stage}.{_DOWNSAMPLE[match[1]]}.{leaf}",)
        if match := re.fullmatch(r"layers\.(\d+)\.(.+)", rest):
            return _layer_sources(f"block{stage}.{match[1]}", match[2], leaf)
    return None


def _layer_sources(block: str, owner: str, leaf: str) -> tuple[str, ...] | None:
    if match := re.fullmatch(r"sam\.op\.convs\.(\d+)", owner):
        return (f"{block}.attn.local_conv_{int(match[1]) + 1}.{leaf}",)
    if leaf == "scale":
        return tuple(f"{block}.{name}" for name in _LAYER.get(f"{owner}.scale", ())) or None
    return tuple(f"{block}.{name}.{leaf}" for name in _LAYER.get(owner, ())) or None


SMT = register(
    Family("smt", lambda keys: {"patch_embed1.conv.0.weight", "block1.0.mlp.dwconv.dwconv.weight"} <= keys, _sources)
)
