"""ResNet's layout (torchvision, timm), and that of the networks that keep its names: ResNeXt, SE-ResNet, Res2Net.

Blocks written in Python have a stage's first block as their downsample.
"""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers, numbered

_BRANCH = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
_ROWS: dict[str, Names] = {
    "stem.0": "conv1",
    "stem.1": "bn1",
    "stages.{s}.downsample.shortcut.{i}": "layer{s+1}.0.downsample.{i}",
    **{f"stages.{{s}}.downsample.branch.{i}": f"layer{{s+1}}.0.{name}" for i, name in _BRANCH.items()},
    **{f"stages.{{s}}.layers.{{l}}.bottleneck.op.{i}": f"layer{{s+1}}.{{l+1}}.{name}" for i, name in _BRANCH.items()},
    "head.fc": "fc",
}


def _res2net(ours: str, quarters: str) -> dict[str, Names]:
    rows = {**conv_bn(f"{ours}.conv_bn", "conv1", "bn1"), **conv_bn(f"{ours}.conv_bn_2", "conv3", "bn3")}
    for i, name in enumerate("abc"):
        rows |= conv_bn(f"{ours}.{quarters}.{name}", f"convs.{i}", f"bns.{i}")
    return rows


_BLOCKS: dict[str, Names] = {
    **numbered("basic.op.basic"),
    **numbered("bottleneck.op.bottleneck"),
    **numbered("se_bottleneck.op.se_bottleneck.bottleneck"),
    "se_bottleneck.op.se_bottleneck.se.chain.linear": "se.fc1",
    "se_bottleneck.op.se_bottleneck.se.chain.linear_2": "se.fc2",
    **_res2net("first_block.op.first_block", "apart"),
    **_res2net("next_block.op", "cascade"),
}
_SKIPS: dict[str, Names] = {
    key: name
    for block in ("basic", "bottleneck", "se_bottleneck", "first_block")
    for key, name in conv_bn(f"{block}.op.skip", "downsample.0", "downsample.1").items()
}
_COMPOSED = {
    **conv_bn("stem.conv_bn", "conv1", "bn1"),
    **in_layers({**_BLOCKS, **_SKIPS}, "layer{s+1}.{l}"),
    "head.logits": "fc",
}
_MARKS = {"conv1.weight", "layer1.0.conv1.weight"}

RESNET = register(Family("resnet", lambda keys: keys >= _MARKS, by_table({**_ROWS, **_COMPOSED})))
