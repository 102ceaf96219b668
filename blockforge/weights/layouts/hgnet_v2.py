"""PP-HGNetV2's layout in timm."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, dwconv_bn, in_layers


def _unit(ours: str, official: str) -> dict[str, Names]:
    return {
        **conv_bn(f"{ours}.conv_bn", f"{official}.conv", f"{official}.bn"),
        f"{ours}.affine": f"{official}.lab",
    }


def _light(ours: str, official: str) -> dict[str, Names]:
    return {
        **conv_bn(f"{ours}.conv_bn", f"{official}.conv1.conv", f"{official}.conv1.bn"),
        **dwconv_bn(f"{ours}.dwconv_bn", f"{official}.conv2.conv", f"{official}.conv2.bn"),
        f"{ours}.affine": f"{official}.conv2.lab",
    }


def _block(hg: str) -> dict[str, Names]:
    rows: dict[str, Names] = {**_unit(f"{hg}.unit", "aggregation.0"), **_unit(f"{hg}.unit_2", "aggregation.1")}
    for i, member in enumerate("abc"):
        rows |= _unit(f"{hg}.graph.{member}", f"layers.{i}")
    return rows


def _light_block(hg: str) -> dict[str, Names]:
    rows = _block(hg)
    for i, member in enumerate("abc"):
        rows |= _light(f"{hg}.graph.{member}", f"layers.{i}")
    return rows


def _in_stage(stage: int, rows: dict[str, Names]) -> dict[str, Names]:
    return {
        ours.replace("{s}", str(stage)): theirs
        for ours, theirs in in_layers(rows, f"stages.{stage}.blocks.{{l}}").items()
    }


_ROWS: dict[str, Names] = {
    **_unit("stem.unit", "stem.stem1"),
    **conv_bn("stem.parallel.convs.conv_bn", "stem.stem2a.conv", "stem.stem2a.bn"),
    "stem.parallel.convs.affine": "stem.stem2a.lab",
    **conv_bn("stem.parallel.convs.conv_bn_2", "stem.stem2b.conv", "stem.stem2b.bn"),
    "stem.parallel.convs.affine_2": "stem.stem2b.lab",
    **_unit("stem.unit_2", "stem.stem3"),
    **_unit("stem.unit_3", "stem.stem4"),
    **dwconv_bn("stages.{s}.downsample", "stages.{s}.downsample.conv", "stages.{s}.downsample.bn"),
    **_in_stage(0, _block("hg.op")),
    **_in_stage(1, _block("hg.op")),
    **_in_stage(2, _light_block("hg.op") | _light_block("residual.op.hg")),
    **_in_stage(3, _light_block("hg.op")),
    "head.linear": "head.last_conv.0",
    "head.affine": "head.last_conv.2",
    "head.logits": "head.fc",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The factor of an affine layer is its weight."""
    return {key.removesuffix(".scale") + ".weight" * key.endswith(".scale"): value for key, value in state.items()}


_MARKS = {"stem.stem2b.lab.scale", "stages.3.blocks.0.layers.0.conv2.lab.scale", "head.last_conv.2.scale"}

HGNET_V2 = register(Family("hgnet_v2", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))
