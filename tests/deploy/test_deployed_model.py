"""What people do with a model works with a deployed one, or is refused in words."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import BlockforgeError

SMALL = {"input.size": 64, "num_classes": 10}


def moved(model: Backbone, seed: int = 0) -> Backbone:
    """The model in evaluation mode, its statistics and weights moved off their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.rand(value.shape, generator=generator) * (1 if value.ndim < 2 else value.std()))
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> Backbone:
    return moved(bf.build("fastvit_t8", SMALL, seed=0))


@pytest.fixture(scope="module")
def deployed(trained: Backbone) -> Backbone:
    return bf.deploy(trained)


def image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def close(a: Any, b: Any, rtol: float = 1e-5) -> None:
    for x, y in zip(a if isinstance(a, list) else [a], b if isinstance(b, list) else [b], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=rtol * y.abs().max().item())


def test_the_trained_model_stays_as_it_is(trained: Backbone) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    other = bf.deploy(trained)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert trained.arch.form == "trained"


def test_it_is_for_inference(deployed: Backbone) -> None:
    assert not any(module.training for module in deployed.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert deployed.eval() is deployed
    with pytest.raises(BlockforgeError, match="fastvit_t8 is deployed: its norms are a part of its convolutions"):
        deployed.train()
    with pytest.raises(BlockforgeError, match="deployed: its classifier"):
        deployed.reset_classifier(5)


def test_copies_and_pickles_are_deployed(deployed: Backbone) -> None:
    for other in (copy.deepcopy(deployed), pickle.loads(pickle.dumps(deployed)), bf.deploy(deployed)):
        assert other.arch.form == "deployed"
        assert not other.training
        assert other is not deployed
        with torch.no_grad():
            assert torch.equal(other(image()), deployed(image()))


def test_features_are_the_trained_ones(trained: Backbone, deployed: Backbone) -> None:
    of_features = bf.build("fastvit_t8", SMALL, features_only=True, out_indices=(1, 3)).eval()
    of_features.load_state_dict({k: v for k, v in trained.state_dict().items() if k in of_features.state_dict()})
    with torch.no_grad():
        maps = of_features(image())
        close(bf.deploy(of_features)(image()), maps)
        close(deployed.features((1, 3))(image()), maps)
        close(deployed.forward_features(image()), maps[-1])
        close(deployed.forward_head(deployed.forward_features(image())), trained(image()))
    assert deployed.feature_info.reduction() == trained.feature_info.reduction()


def test_folders_say_that_they_hold_it(deployed: Backbone, tmp_path: Path) -> None:
    bf.save_model(deployed, tmp_path / "own")
    deployed.save_pretrained(tmp_path / "hub")
    bf.save_model(deployed.features((1, 3)), tmp_path / "maps")
    for other in (bf.load_model(tmp_path / "own"), bf.from_pretrained(tmp_path / "hub")):
        assert (other.arch.form, other.arch.hash) == ("deployed", deployed.arch.hash)
        with torch.no_grad():
            assert torch.equal(other(image()), deployed(image()))
    with torch.no_grad():
        close(bf.load_model(tmp_path / "maps")(image()), deployed.features((1, 3))(image()), rtol=1e-6)
    versions = json.loads((tmp_path / "own" / "versions.json").read_text())
    assert versions["form"] == "deployed"
    (tmp_path / "own" / "versions.json").write_text(json.dumps(versions | {"form": 3}))
    with pytest.raises(BlockforgeError, match="form is trained or deployed"):
        bf.load_model(tmp_path / "own")


def test_weights_go_into_the_form_that_they_are_of(trained: Backbone, deployed: Backbone, tmp_path: Path) -> None:
    bf.save_model(trained, tmp_path / "trained")
    bf.save_model(deployed, tmp_path / "deployed")
    other = bf.build(deployed.arch, weights=tmp_path / "deployed" / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(other(image()), deployed(image()))
    with pytest.raises(BlockforgeError, match=r"(?s)of the form that is trained.*bf.deploy"):
        bf.build(deployed.arch, weights=tmp_path / "trained" / "model.safetensors")
    with pytest.raises(BlockforgeError, match=r"(?s)of the form that is deployed.*bf.load_model"):
        bf.build("fastvit_t8", SMALL, weights=tmp_path / "deployed" / "model.safetensors")


def test_graphs_as_json_keep_the_form(deployed: Backbone) -> None:
    text = deployed.arch.to_json()
    other = bf.Architecture.from_json(text)
    assert (other.form, other.params, other.to_json()) == ("deployed", deployed.arch.params, text)
    assert json.loads(text)["totals"]["form"] == "deployed"


def test_half_precision_and_types_stay(trained: Backbone) -> None:
    other = bf.deploy(copy.deepcopy(trained).bfloat16())
    assert {p.dtype for p in other.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        close(other(image().bfloat16()).float(), trained(image()), rtol=0.1)


def test_it_may_have_no_values_yet(trained: Backbone) -> None:
    other = bf.deploy(bf.build("fastvit_t8", SMALL, device="meta"))
    assert all(p.is_meta for p in other.parameters())
    assert {k: v.shape for k, v in other.state_dict().items()} == {
        k: v.shape for k, v in bf.deploy(trained).state_dict().items()
    }


def test_a_fresh_one_is_built_of_its_graph(deployed: Backbone) -> None:
    fresh = bf.build(deployed.arch)
    assert not fresh.training
    assert fresh.state_dict().keys() == deployed.state_dict().keys()
    other = bf.build(deployed.arch, num_classes=7)
    assert (other.arch.form, other.num_classes) == ("deployed", 7)


def test_what_is_not_as_it_was_built_is_not_folded(trained: Backbone) -> None:
    class Adapter(nn.Module):
        def __init__(self, around: nn.Module) -> None:
            super().__init__()
            self.around, self.weight, self.bias = around, around.weight, around.bias

        def forward(self, x: Tensor) -> Tensor:
            return self.around(x)

    model = copy.deepcopy(trained)
    block = model.get_submodule("stages.0.layers.0.conv_ffn.op")
    block.linear = Adapter(block.linear)
    assert bf.deploy(model).get_submodule("stages.0.layers.0.conv_ffn.op.linear").around is not block.linear.around
    block.linear_2 = Adapter(block.linear_2)
    with pytest.raises(BlockforgeError, match=r"op.linear_2 cannot be folded: a Adapter stands where a Linear was"):
        bf.deploy(model)


def test_statistics_of_the_batch_alone_cannot_be_folded() -> None:
    model = bf.build("repvgg_a0", SMALL)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    with pytest.raises(BlockforgeError, match="no BatchNorm with running statistics"):
        bf.deploy(model)
