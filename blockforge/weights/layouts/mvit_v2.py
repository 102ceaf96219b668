"""MViT v2's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers


def _attention(ours: str) -> dict[str, Names]:
    rows: dict[str, Names] = {
        f"{ours}.graph.qkv": "attn.qkv",
        f"{ours}.graph.attn_join.attend.rel_pos.rows": "attn.rel_pos_h",
        f"{ours}.graph.attn_join.attend.rel_pos.columns": "attn.rel_pos_w",
        f"{ours}.linear": "attn.proj",
    }
    for role in "qkv":
        rows[f"{ours}.graph.{role}.split.dwconv"] = f"attn.pool_{role}"
        rows[f"{ours}.graph.{role}.split.ln"] = f"attn.norm_{role}"
    return rows


_LAYER: dict[str, Names] = {
    "attention.norm": "norm1",
    **_attention("attention.op"),
    "pooled.op.ln": "norm1",
    "pooled.op.residual.skip.linear": "shortcut_proj_attn",
    **_attention("pooled.op.residual.attention"),
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "patch_embed.proj",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "head.ln": "norm",
    "head.logits": "head.fc",
}

_MARKS = {"patch_embed.proj.weight", "stages.0.blocks.0.attn.rel_pos_h", "stages.1.blocks.0.shortcut_proj_attn.weight"}

MVIT_V2 = register(Family("mvit_v2", lambda keys: keys >= _MARKS, by_table(_ROWS)))
