"""The deployed form of whole networks: timm's where it has one, and of the whole zoo the same outputs for less."""

from __future__ import annotations

import pytest
import torch
from timm_models import load_timm, peer
from torch.utils.flop_counter import FlopCounterMode

import blockforge as bf
from blockforge.testing.models import check_deployed
from blockforge.weights.official import load_official

UNFOLDED = {"fastvit_t8": 2 * (2 * 48 + 2 * 96 + 4 * 192 + 2 * 384)}
"""Parameters that timm leaves where they are: a norm behind FastViT's 7x7 convolutions, a scale behind its MLPs."""
NAMES = ["repvgg_a0", "repvit_m0_9", "mobileone_s1", "fastvit_t8"]


@pytest.mark.parametrize("name", NAMES)
def test_it_costs_what_timms_reparameterised_model_costs(name: str) -> None:
    arch, timm = bf.compile(name), load_timm()
    theirs = timm.utils.reparameterize_model(timm.create_model(name).eval())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(torch.zeros(1, 3, *arch.plan.input.size))
    assert arch.deployed.params == sum(p.numel() for p in theirs.parameters()) - UNFOLDED.get(name, 0)
    assert arch.deployed.macs == counter.get_total_flops() // 2
    assert arch.deployed.hash == arch.hash


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_what_timms_model_gives(name: str) -> None:
    theirs = peer(name)
    ours = bf.build(name, {"input.size": 64, "num_classes": 10}).double()
    load_official(ours, theirs.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    with torch.no_grad():
        expected = theirs(x)
        largest = expected.abs().max().item()
        torch.testing.assert_close(bf.deploy(ours.eval())(x), expected, rtol=0, atol=1e-9 * largest)
        trained = (ours.float()(x.float()) - expected).abs().max().item()
        bound = max(1e-5 * largest, 3 * trained)  # float32 itself is no nearer
        torch.testing.assert_close(check_deployed(ours)(x.float()).double(), expected, rtol=0, atol=bound)
