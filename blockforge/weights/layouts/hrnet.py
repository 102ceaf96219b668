"""HRNet-W18-Small's layout in timm. Of the modules that exchange, `fuse_layers.i.j` leads from stream j to stream i."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn

_MODULES = {2: (1, (1, 2), (3, 4)), 3: (2, (5, 6, 7), (8, 9, 10)), 4: (3, (11, 12, 13, 14), (15, 16, 17, 18))}
"""timm's stage -> the transition before it, and of its streams our stages before and behind the exchange."""
_PARTS = ("conv_bn", "conv_bn_2", "conv_bn_3")
_DOWN = {1: ("",), 2: (".conv_bn", ".d2"), 3: (".conv_bn", ".d4.conv_bn", ".d4.d2")}
"""How many streams an exchange leads down -> our convolutions on the way."""


def _bottleneck(ours: str, theirs: str) -> dict[str, Names]:
    rows = dict[str, Names]()
    for i, part in enumerate(_PARTS, 1):
        rows |= conv_bn(f"{ours}.{part}", f"{theirs}.conv{i}", f"{theirs}.bn{i}")
    return {**rows, **conv_bn(f"{ours}.skip.conv_bn", f"{theirs}.downsample.0", f"{theirs}.downsample.1")}


def _module(number: int) -> dict[str, Names]:
    """The streams of one of timm's stages and their exchange."""
    transition, streams, exchanges = _MODULES[number]
    module, rows = f"stage{number}.0", dict[str, Names]()
    for j, stage in enumerate(streams):
        for i, part in enumerate(_PARTS[:2], 1):
            theirs = f"{module}.branches.{j}.{{l}}"
            rows |= conv_bn(f"stages.{stage}.layers.{{l}}.chain.op.{part}", f"{theirs}.conv{i}", f"{theirs}.bn{i}")
    for i, stage in enumerate(exchanges):
        for j in range(len(streams)):
            fuse = f"{module}.fuse_layers.{i}.{j}"
            if j > i:
                rows |= conv_bn(f"stages.{stage}.from_{j}.conv_bn", f"{fuse}.0", f"{fuse}.1")
            for k, part in enumerate(_DOWN.get(i - j, ())):
                rows |= conv_bn(f"stages.{stage}.from_{j}{part}", f"{fuse}.{k}.0", f"{fuse}.{k}.1")
    new = f"transition{transition}.{len(streams) - 1}.0"
    return {**rows, **conv_bn(f"stages.{streams[-1]}.from_0", f"{new}.0", f"{new}.1")}


def _to_one_map(i: int) -> dict[str, Names]:
    """What joins stream i and the finer ones."""
    ours, theirs = f"stages.{19 + i}", f"downsamp_modules.{i - 1}"
    widened = conv_bn(f"{ours}.from_1", f"{theirs}.0", f"{theirs}.1")
    return {**_bottleneck(f"{ours}.from_0", f"incre_modules.{i}.0"), **widened}


_ROWS: dict[str, Names] = {
    **conv_bn("stem.conv_bn", "conv1", "bn1"),
    **conv_bn("stem.conv_bn_2", "conv2", "bn2"),
    **_bottleneck("stages.0.layers.0.narrow.op", "layer1.0"),
    **conv_bn("stages.1.from_0", "transition1.0.0", "transition1.0.1"),
    **_module(2),
    **_module(3),
    **_module(4),
    **_bottleneck("stages.19.layers.0.narrow.op", "incre_modules.0.0"),
    **_to_one_map(1),
    **_to_one_map(2),
    **_to_one_map(3),
    **conv_bn("head.conv_bn", "final_layer.0", "final_layer.1"),
    "head.logits": "classifier",
}

_MARKS = {"transition1.0.0.weight", "stage4.0.fuse_layers.3.0.2.0.weight", "incre_modules.0.0.conv1.weight"}

HRNET = register(Family("hrnet", lambda keys: keys >= _MARKS, by_table(_ROWS)))
