"""Strip-MLP's official layout (github Med-Process/Strip_MLP)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_STRIP = "token_mixing.smlp_block"
_LAYER = {
    "strip_mixing.op.norm": "token_mixing.dwsc.conv_merge.BN",
    "strip_mixing.op.dwconv": "token_mixing.dwsc.conv_merge.Conv",
    "strip_mixing.op.fc": f"{_STRIP}.mlp.0",
    "strip_mixing.op.bn": f"{_STRIP}.mlp.1",
    "strip_mixing.op.fuse": f"{_STRIP}.fuse",
    "strip_mixing.op.cgsmm.pos_rows.table": f"{_STRIP}.relate_pos_h.embeddings_table",
    "strip_mixing.op.cgsmm.pos_columns.table": f"{_STRIP}.relate_pos_w.embeddings_table",
    "strip_mixing.op.cgsmm.rows.conv": f"{_STRIP}.proj_h",
    "strip_mixing.op.cgsmm.columns.conv": f"{_STRIP}.proj_w",
    "strip_mixing.op.cgsmm.fuse_rows": f"{_STRIP}.fuse_h",
    "strip_mixing.op.cgsmm.fuse_columns": f"{_STRIP}.fuse_w",
    "strip_mixing.op.cgsmm.bn": f"{_STRIP}.BN",
    "strip_mixing.op.lsmm.wide": f"{_STRIP}.fc_h",
    "strip_mixing.op.lsmm.tall": f"{_STRIP}.fc_w",
    "strip_mixing.op.lsmm.reweight.0": f"{_STRIP}.reweight.fc1",
    "strip_mixing.op.lsmm.reweight.2": f"{_STRIP}.reweight.fc2",
    "grn_mlp.op.dwconv": "channel_mixing.conv_77",
    "grn_mlp.op.norm": "channel_mixing.layer_norm",
    "grn_mlp.op.fc1": "channel_mixing.fc1",
    "grn_mlp.op.grn": "channel_mixing.grn",
    "grn_mlp.op.fc2": "channel_mixing.fc2",
}
_ROWS = {
    "stem.0": "patch_embed",
    "stages.{s}.downsample.1": "merging{s}",
    **in_layers(_LAYER, "blocks{s+1}.{l}"),
    "skips.0.2": "conv_s1_28",
    "skips.0.3": "conv_s1_14",
    "skips.1.3": "conv_s2_14",
    "head.norm": "norm",
    "head.fc": "head",
}

_MARKS = {"patch_embed.weight", f"blocks1.0.{_STRIP}.fuse.weight"}

STRIP_MLP = register(Family("strip_mlp", lambda keys: keys >= _MARKS, by_table(_ROWS)))
