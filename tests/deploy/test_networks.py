"""The deployed form of whole networks: timm's where it has one, and of the whole zoo the same outputs for less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm_models import load_timm, peer
from torch.utils.flop_counter import FlopCounterMode

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.testing import randomise
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


# --- any network

TESTS = Path(__file__).parents[1]
SMALL = [*sorted((TESTS / "specs").glob("*.yaml")), *sorted((TESTS / "compose" / "small").glob("*.yaml"))]
OF_ONE_SIZE = {"gmlp_s16_224", "hiera_tiny", "maxvit_tiny"}
ZOO = bf.list_specs()


def moved(model: Backbone) -> Backbone:
    """In evaluation mode, with weights and statistics that hide nothing."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and "running" in name:
            buffer.add_(torch.rand(buffer.shape, generator=generator) * (1.0 if name.endswith("var") else 0.3))
    randomise(model)
    return model.eval()


def gives_the_same(model: Backbone) -> None:
    size = model.arch.plan.input
    x = torch.randn(1, size.channels, *size.size, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    with torch.no_grad():
        expected, found = model.double()(x), bf.deploy(model)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def costs_no_more(arch: bf.Architecture) -> None:
    deployed = arch.deployed
    assert deployed.nodes.keys() == arch.nodes.keys()
    for node, before in zip(deployed.nodes.values(), arch.nodes.values(), strict=True):
        assert node.params <= before.params
        assert node.macs <= before.macs
        assert node.out_shape == before.out_shape
    assert deployed.activation_bytes <= arch.activation_bytes


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.stem)
def test_small_networks_of_every_block_give_the_same(file: Path) -> None:
    model = moved(bf.build(file, seed=0))
    costs_no_more(model.arch)
    gives_the_same(model)


@pytest.mark.parametrize("name", ["resnet50", "swin_tiny"])
def test_networks_of_blocks_in_python(name: str) -> None:
    deployed = check_deployed(moved(bf.build(name, {"input.size": 64, "num_classes": 10}, seed=0)))
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in deployed.modules())
    assert norms == 0
    assert (deployed.arch.params == deployed.arch.trained.params) == (name == "swin_tiny")


def test_aggregators_stay_beside_what_is_rewritten() -> None:
    stage = {"dim": 8, "depth": 3, "layers": "b", "connect": {"rule": "sparx", "stride": 2, "aggregate": "concat"}}
    fed = {"op": [{"op": "dwconv"}, "batch_norm"], "norm": "batch_norm", "scale": 0.5, "post_act": "prelu"}
    branches = [{"op": "dwconv", "norm": "none"}, fed]
    source = {
        "blockforge": 1, "name": "net", "input": {"size": 16}, "num_classes": 5, "blocks": {"b": branches},
        "stem": {"op": "patch_embed", "dim": 8}, "stages": [stage], "head": {"op": "classifier"},
    }  # fmt: skip
    model = moved(bf.build(source, seed=0))
    assert any(node.sources for node in model.arch.nodes.values())
    deployed = check_deployed(model)
    assert deployed.arch.nodes["stages.0.layers.0.dwconv"].program is not None
    assert not any(p.is_meta for p in deployed.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_gives_the_same(name: str) -> None:
    size = bf.compile(name).plan.input.size if name in OF_ONE_SIZE else 64
    model = moved(bf.build(name, {"input.size": size, "num_classes": 10}, seed=0))
    costs_no_more(model.arch)
    costs_no_more(bf.compile(name))
    gives_the_same(model)
