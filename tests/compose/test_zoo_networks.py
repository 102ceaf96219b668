"""The networks of the zoo that are YAML alone are timm's: in parameters, multiply-adds and outputs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm, peer
from torch.utils.flop_counter import FlopCounterMode

import blockforge as bf
from blockforge.testing import check_spec
from blockforge.weights.official import load_official

with (Path(__file__).parents[1] / "data" / "zoo.csv").open(encoding="utf-8") as _file:
    ZOO = [row["variant"] for row in csv.DictReader(_file) if row["family"] == "timm"]
LONGER = {
    "hiera_tiny": "hiera_tiny_224",
    "maxvit_tiny": "maxvit_tiny_tf_224",
    "res2net50": "res2net50_26w_4s",
    "swinv2_tiny": "swinv2_tiny_window8_256",
    "vit_small_reg4": "vit_small_patch14_reg4_dinov2",
}
"""timm's name, where it says more."""
MORE_MACS = {"maxvit_tiny": 168 * 39494}
"""timm reads MaxViT's tables of positions by products with lookup tensors: so many a head and attention layer."""
OF_ONE_SIZE = {
    "coatnet_0_rw_224",
    "davit_tiny",
    "gmlp_s16_224",
    "hiera_tiny",
    "maxvit_tiny",
    "mixer_s16_224",
    "twins_svt_small",
}
"""Their weights, or in timm their windows, are made for the size of the image."""
BUILT_FOR = {
    "cait_xxs24_224": 64,
    "crossvit_9_240": 120,
    "deit_small_distilled_patch16_224": 64,
    "mvitv2_tiny": 64,
    "pit_s_224": 64,
    "swinv2_tiny": 128,
    "vit_small_patch16_224": 64,
    "vit_mediumd_patch16_rope_reg1_gap_256": 64,
    "vit_small_reg4": 56,
}
"""Small sizes that timm can be told: of Swin the smallest one with tiles that are shifted in two stages."""


def size_of(name: str) -> int | tuple[int, int]:
    return bf.compile(name).plan.input.size if name in OF_ONE_SIZE else BUILT_FOR.get(name, 64)


@pytest.mark.parametrize("name", ZOO)
def test_parameters_and_macs_are_timms(name: str) -> None:
    arch, timm = bf.compile(name), load_timm()
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs = timm.create_model(LONGER.get(name, name)).eval().requires_grad_(False)
        theirs(torch.empty(1, 3, *arch.plan.input.size))
    assert arch.params == sum(p.numel() for p in theirs.parameters())
    assert arch.macs == counter.get_total_flops() // 2 - MORE_MACS.get(name, 0)


@pytest.mark.parametrize("name", ZOO)
def test_timms_weights_give_timms_outputs(name: str) -> None:
    size = size_of(name)
    given: dict[str, Any] = {"img_size": size} if name in BUILT_FOR else {}
    theirs = peer(LONGER.get(name, name), **given)
    ours = bf.build(name, {"input.size": size, "num_classes": 10}).double().eval()
    load_official(ours, theirs.state_dict())
    sides = (size, size) if isinstance(size, int) else size
    x = torch.randn(1, 3, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_they_are_what_their_graphs_say(name: str) -> None:
    check_spec(name, {"input.size": BUILT_FOR.get(name, 64), "num_classes": 10})
