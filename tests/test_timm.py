"""Where timm has the network too: the same parameters, and with its weights the same logits."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import pytest
import torch
from reference import rel
from timm_models import load_timm, peer
from torch import Tensor

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.weights.family import FAMILIES

NAMES = {
    "convnext_t": "convnext_tiny",
    "convnext_s": "convnext_small",
    "convnext_b": "convnext_base",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "deit_s": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "resnet50": "resnet50",
    "mlp_mixer_b16": "mixer_b16_224",
    "poolformer_s12": "poolformer_s12",
    "focalnet_t": "focalnet_tiny_srf",
}


class Case(NamedTuple):
    """A network of both: our name and overrides, timm's arguments, the image's size."""

    name: str
    overrides: dict[str, Any]
    kwargs: dict[str, Any]
    size: tuple[int, int]


def depths(*layers: int) -> dict[str, int]:
    return {f"stages.{i}.depth": n for i, n in enumerate(layers)}


CASES = {
    "convnext": Case("convnext_t", depths(1, 1, 2, 1), {"depths": (1, 1, 2, 1)}, (64, 96)),
    "convnext_b": Case("convnext_b", depths(1, 1, 1, 1), {"depths": (1, 1, 1, 1)}, (33, 70)),
    "convnext_v2": Case(
        "convnext_t",
        {**depths(1, 1, 1, 1), "blocks.convnext.0.grn": True, "blocks.convnext.0.kernel_size": 5},
        {"depths": (1, 1, 1, 1), "use_grn": True, "kernel_sizes": 5},
        (64, 64),
    ),
    "deit": Case("deit_s", depths(3), {"depth": 3, "img_size": (64, 96)}, (64, 96)),
    "deit_b": Case("deit_b", depths(1), {"depth": 1, "img_size": 64}, (64, 64)),
    "deit_avg": Case(
        "deit_s",
        {**depths(2), "let.class_token": False, "let.pool": "avg"},
        {"depth": 2, "img_size": (64, 96), "global_pool": "avg", "class_token": False},
        (64, 96),
    ),
    "deit_with_scales": Case(
        "deit_s",
        {**depths(2), "blocks.vit.0.scale": 1.0e-5, "blocks.vit.1.scale": 1.0e-5},
        {"depth": 2, "img_size": 64, "init_values": 1e-5},
        (64, 64),
    ),
    "swin": Case("swin_tiny", depths(2, 2, 2, 1), {"depths": (2, 2, 2, 1), "img_size": (224, 224)}, (224, 224)),
    "swin_window": Case(
        "swin_tiny",
        {**depths(2, 2, 1, 1), "let.window": 4},
        {"depths": (2, 2, 1, 1), "window_size": 4, "img_size": (128, 128)},
        (128, 128),
    ),
    "resnet50": Case("resnet50", depths(1, 2, 1, 1), {"layers": (2, 3, 2, 2)}, (65, 98)),
    "resnext": Case(
        "resnet50",
        {
            **depths(1, 1, 1, 1),
            "blocks.bottleneck.0": {"op": "bottleneck", "ratio": 0.5, "groups": 32, "post_act": "relu"},
            "downsample": {"op": "bottleneck_downsample", "ratio": 0.5, "groups": 32},
            "stages.0.downsample": {"op": "bottleneck_downsample", "stride": 1, "ratio": 0.5, "groups": 32},
        },
        {"layers": (2, 2, 2, 2), "cardinality": 32, "base_width": 4},
        (64, 64),
    ),
    "mlp_mixer_b16": Case("mlp_mixer_b16", {}, {"img_size": (64, 96)}, (64, 96)),
    "poolformer": Case("poolformer_s12", {}, {}, (66, 99)),
    "focalnet": Case("focalnet_t", {}, {}, (64, 96)),
    "focalnet_lrf": Case(
        "focalnet_t",
        {
            "blocks.focal.0": {"op": "focal_modulation", "levels": 3, "normalize": True, "scale": 1.0e-4},
            "blocks.focal.1.scale": 1.0e-4,
        },
        {"focal_levels": [3, 3, 3, 3], "normalize_modulator": True, "layerscale_value": 1e-4},
        (70, 64),
    ),
    "focalnet_inner_norm": Case(
        "focalnet_t",
        {"blocks.focal.0.inner_norm": "layer_norm", "blocks.focal.0.window": 5},
        {"focal_windows": [5, 5, 5, 5], "use_post_norm_in_modulation": True},
        (64, 64),
    ),
}


def built(case: Case, state: dict[str, Tensor]) -> Backbone:
    overrides = {"num_classes": 10, "input.size": list(case.size), **case.overrides}
    return bf.from_official(case.name, state, overrides).double().eval()


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    timm = load_timm()
    with torch.device("meta"):
        theirs = timm.create_model(NAMES[name])
    assert bf.compile(name).params == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits(case: Case) -> None:
    theirs = peer(NAMES[case.name], **case.kwargs)
    ours = built(case, theirs.state_dict())
    x = torch.randn(2, 3, *case.size, dtype=torch.float64)
    with torch.no_grad():
        assert rel(ours(x), theirs(x)) < 1e-6


@pytest.mark.parametrize(
    ("family", "case"), [("convnext", "convnext"), ("poolformer", "poolformer"), ("focalnet", "focalnet")]
)
def test_official_layout(family: str, case: str) -> None:
    """timm reads official checkpoints, too: what it makes of one is what we make of it."""
    ours = built(CASES[case], peer(NAMES[CASES[case].name], **CASES[case].kwargs).state_dict())
    official = {}
    for key, value in ours.state_dict().items():
        names = FAMILIES[family].sources(key)
        assert names is not None, key
        official[names[0]] = value
    theirs = peer(NAMES[CASES[case].name], **CASES[case].kwargs)
    module = sys.modules[type(theirs).__module__]
    theirs.load_state_dict(module.checkpoint_filter_fn(dict(official), theirs))
    x = torch.randn(2, 3, *CASES[case].size, dtype=torch.float64)
    with torch.no_grad():
        assert rel(built(CASES[case], official)(x), theirs(x)) < 1e-6
