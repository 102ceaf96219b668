"""VMamba's official layout (github MzeroMiko/VMamba), and what of it other families share."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

SS2D = {
    "ss2d.norm": "norm",
    "ss2d.op.in_proj": "op.in_proj",
    "ss2d.op.conv": "op.conv2d",
    "ss2d.op.x_proj.weight": "op.x_proj_weight",
    "ss2d.op.dt_proj.{k}.weight": "op.dt_projs_weight.{k}",
    "ss2d.op.dt_bias": "op.dt_projs_bias",
    "ss2d.op.A_log": "op.A_logs",
    "ss2d.op.D": "op.Ds",
    "ss2d.op.out_norm": "op.out_norm",
    "ss2d.op.out_proj": "op.out_proj",
}
_ROWS = {
    "stem.0": "patch_embed.0",
    "stem.1": "patch_embed.2",
    "stem.3": "patch_embed.5",
    "stem.4": "patch_embed.7",
    "stages.{s}.downsample.0": "layers.{s-1}.downsample.1",
    "stages.{s}.downsample.1": "layers.{s-1}.downsample.3",
    **in_layers(
        {**SS2D, "mlp.norm": "norm2", "mlp.op.fc1": "mlp.fc1", "mlp.op.fc2": "mlp.fc2"}, "layers.{s}.blocks.{l}"
    ),
    "out_norms.{s}": "outnorm{s}",
    "head.norm": "classifier.norm",
    "head.fc": "classifier.head",
}


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


VMAMBA = register(
    Family(
        "vmamba",
        lambda keys: "layers.0.blocks.0.op.A_logs" in keys and "layers.0.blocks.0.pos_embed.weight" not in keys,
        by_table(_ROWS),
        prepare=prepare,
    )
)
