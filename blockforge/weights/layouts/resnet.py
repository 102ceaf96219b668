"""ResNet's layout (torchvision, timm): they are the same. A stage's first block is our downsample."""

from __future__ import annotations

from blockforge.weights.layouts.tensor_names import by_table
from blockforge.weights.official import Family, register

_BRANCH = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
_ROWS = {
    "stem.0": "conv1",
    "stem.1": "bn1",
    "stages.{s}.downsample.shortcut.{i}": "layer{s+1}.0.downsample.{i}",
    **{f"stages.{{s}}.downsample.branch.{i}": f"layer{{s+1}}.0.{name}" for i, name in _BRANCH.items()},
    **{f"stages.{{s}}.layers.{{l}}.bottleneck.op.{i}": f"layer{{s+1}}.{{l+1}}.{name}" for i, name in _BRANCH.items()},
    "head.fc": "fc",
}

_MARKS = {"conv1.weight", "layer1.0.conv3.weight"}

RESNET = register(Family("resnet", lambda keys: keys >= _MARKS, by_table(_ROWS)))
