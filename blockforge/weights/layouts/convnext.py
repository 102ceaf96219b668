"""ConvNeXt's layouts: official (github facebookresearch/ConvNeXt, ConvNeXt-V2) and timm's, with EdgeNeXt's names."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_OFFICIAL = {
    "stem.{i}": "downsample_layers.0.{i}",
    "stages.{s}.downsample.{i}": "downsample_layers.{s}.{i}",
    "out_norms.{s}": "norm{s}",
    "head.pooled_norm": "norm",
    "head.fc": "head",
    **in_layers(
        {
            "convnext.scale": "gamma",
            "convnext.op.dwconv": "dwconv",
            "convnext.op.norm": "norm",
            "convnext.op.fc1": "pwconv1",
            "convnext.op.grn": "grn",
            "convnext.op.fc2": "pwconv2",
        },
        "stages.{s}.{l}",
    ),
}
_TIMM = {
    "stem.{i}": "stem.{i}",
    "stages.{s}.downsample.{i}": "stages.{s}.downsample.{i}",
    "head.pooled_norm": "head.norm",
    "head.fc": "head.fc",
    **in_layers(
        {
            "convnext.scale": "gamma",
            "convnext.op.dwconv": "conv_dw",
            "convnext.op.norm": "norm",
            "convnext.op.fc1": "mlp.fc1",
            "convnext.op.grn.gamma": "mlp.grn.weight",
            "convnext.op.grn.beta": "mlp.grn.bias",
            "convnext.op.fc2": "mlp.fc2",
        },
        "stages.{s}.blocks.{l}",
    ),
}
_TIMM_COMPOSED = {
    "stem.conv": "stem.0",
    "stem.ln": "stem.1",
    "stages.{s}.downsample.ln": "stages.{s}.downsample.0",
    "stages.{s}.downsample.conv": "stages.{s}.downsample.1",
    "head.ln": "head.norm",
    "head.logits": "head.fc",
    **in_layers(
        {
            "convnext_block.scale": "gamma",
            "convnext_block.op.dwconv": "conv_dw",
            "convnext_block.op.ln": "norm",
            "convnext_block.op.linear": "mlp.fc1",
            "convnext_block.op.grn.gamma": "mlp.grn.weight",
            "convnext_block.op.grn.beta": "mlp.grn.bias",
            "convnext_block.op.linear_2": "mlp.fc2",
        },
        "stages.{s}.blocks.{l}",
    ),
}
_XCA = "encoder.op.residual"
_EDGENEXT: dict[str, Names] = {
    "encoder.scale": "gamma",
    **{f"encoder.op.cascade.{name}": f"convs.{i}" for i, name in enumerate("abc")},
    "encoder.op.place.split.positions": "pos_embd.token_projection",
    f"{_XCA}.norm": "norm_xca",
    f"{_XCA}.xca.linear": "xca.qkv",
    f"{_XCA}.xca.attend.temperature": "xca.temperature",
    f"{_XCA}.xca.linear_2": "xca.proj",
    f"{_XCA}.scale.weight": "gamma_xca",
    "encoder.op.ln": "norm",
    "encoder.op.linear": "mlp.fc1",
    "encoder.op.linear_2": "mlp.fc2",
}

CONVNEXT = register(
    Family(
        "convnext",
        lambda keys: "stages.0.0.pwconv1.weight" in keys,
        by_table(_OFFICIAL),
        out_norm={"op": "layer_norm", "eps": 1e-6},
    )
)
CONVNEXT_TIMM = register(
    Family(
        "convnext_timm",
        lambda keys: "stages.0.blocks.0.conv_dw.weight" in keys,
        by_table({**_TIMM, **_TIMM_COMPOSED, **in_layers(_EDGENEXT, "stages.{s}.blocks.{l}")}),
    )
)
