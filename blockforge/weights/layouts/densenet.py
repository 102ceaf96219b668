"""DenseNet's layout (torchvision, timm)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers

_LAYER: dict[str, Names] = {
    "dense.op.new.batch_norm": "norm1",
    **conv_bn("dense.op.new.conv_bn", "conv1", "norm2"),
    "dense.op.new.conv": "conv2",
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem.conv_bn", "features.conv0", "features.norm0"),
    "stages.{s}.downsample.batch_norm": "features.transition{s}.norm",
    "stages.{s}.downsample.conv": "features.transition{s}.conv",
    **in_layers(_LAYER, "features.denseblock{s+1}.denselayer{l+1}"),
    "head.batch_norm": "features.norm5",
    "head.logits": "classifier",
}

_MARKS = {"features.conv0.weight", "features.denseblock1.denselayer1.conv1.weight"}

DENSENET = register(Family("densenet", lambda keys: keys >= _MARKS, by_table(_ROWS)))
