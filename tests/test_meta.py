"""Models laid out on the meta device: given memory and weights afterwards, they are the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm
from torch import Tensor, nn

import blockforge as bf
import blockforge.specs
from blockforge.blocks.computed import Computed
from blockforge.compiler.lowering.backbone import Backbone

SPECS = Path(__file__).parent / "specs"
ZOO = Path(blockforge.specs.__file__).parent
NARROW = sorted((ZOO / "narrow").glob("*.yaml"))
SMALL = [*NARROW, SPECS / "linear_attention.yaml", SPECS / "vit_stem.yaml", SPECS / "sparse_mlp.yaml"]
LARGE = [pytest.param(file, marks=pytest.mark.slow) for file in sorted(ZOO.glob("*.yaml"))]


def outputs(model: nn.Module, arch: bf.Architecture) -> Tensor:
    size = arch.plan.input
    x = torch.randn(1, size.channels, *size.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y: Tensor = model.eval()(x)
    return y


def given_memory(model: Backbone, weights: dict[str, Tensor]) -> None:
    model.to_empty(device="cpu")
    model.load_state_dict(weights)


def assigned(model: Backbone, weights: dict[str, Tensor]) -> None:
    model.load_state_dict(weights, assign=True)


def as_timm_does(model: Backbone, weights: dict[str, Tensor]) -> None:
    given_memory(model, weights)
    spoil(model)
    model.init_non_persistent_buffers()


def moved(model: Backbone, weights: dict[str, Tensor]) -> None:
    assigned(model, weights)
    model.to("cpu")


def spoil(model: nn.Module) -> None:
    """Fill what no file of weights holds."""
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            module.get_buffer(name).fill_(1)


@pytest.mark.parametrize("way", [given_memory, assigned, moved, as_timm_does])
@pytest.mark.parametrize("file", SMALL, ids=lambda f: f.stem)
def test_a_model_from_the_meta_device_is_the_model(file: Path, way: Callable[..., None]) -> None:
    wanted = bf.build(file, seed=0)
    with torch.device("meta"):
        model = bf.build(file)
    assert all(t.is_meta for t in [*model.parameters(), *model.buffers()])
    way(model, wanted.state_dict())
    assert torch.equal(outputs(model, model.arch), outputs(wanted, wanted.arch))


@pytest.mark.parametrize("file", LARGE, ids=lambda f: f.stem)
def test_every_network_of_the_zoo(file: Path) -> None:
    wanted = bf.build(file, seed=0)
    model = bf.build(file, device="meta")
    given_memory(model, wanted.state_dict())
    assert torch.equal(outputs(model, model.arch), outputs(wanted, wanted.arch))


@pytest.mark.parametrize("name", ["swin", "strip_mlp", "smt"])
def test_memory_given_twice(name: str) -> None:
    wanted = bf.build(ZOO / "narrow" / f"{name}.yaml", seed=0)
    weights = {k: v.clone() for k, v in wanted.state_dict().items()}
    before = outputs(wanted, wanted.arch)
    given_memory(wanted, weights)
    assert torch.equal(outputs(wanted, wanted.arch), before)


@pytest.mark.parametrize("include_buffers", [False, True])
@pytest.mark.parametrize("name", ["swin", "sparx_swin", "strip_mlp", "resnet"])
def test_accelerates_empty_weights(name: str, include_buffers: bool, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    file = ZOO / "narrow" / f"{name}.yaml"
    wanted = bf.build(file, seed=0)
    bf.save_model(wanted, tmp_path)
    with accelerate.init_empty_weights(include_buffers=include_buffers):
        model = bf.build(file)
    loaded = accelerate.load_checkpoint_and_dispatch(model, str(tmp_path / "model.safetensors"), device_map={"": "cpu"})
    torch.testing.assert_close(outputs(loaded, model.arch), outputs(wanted, wanted.arch), rtol=0, atol=1e-6)


def test_a_model_of_timm() -> None:
    timm = load_timm()
    from timm.models._manipulate import reinit_non_persistent_buffers

    import blockforge.timm  # noqa: F401  (registers)

    spec = str(ZOO / "narrow" / "swin.yaml")
    wanted = timm.create_model("blockforge", spec=spec)
    model = timm.create_model("blockforge", spec=spec, device="meta")
    model.to_empty(device="cpu")
    model.load_state_dict(wanted.state_dict())
    spoil(model)
    assert reinit_non_persistent_buffers(model)[0] == "(root)"
    assert torch.equal(outputs(model, model.arch), outputs(wanted, wanted.arch))


def test_buffers_keep_their_type_and_memory() -> None:
    rotation: Any = next(m for m in bf.build(SPECS / "linear_attention.yaml").modules() if isinstance(m, Computed))
    exact, at = rotation.cos.clone(), rotation.cos.data_ptr()
    rotation.init_non_persistent_buffers()
    assert rotation.cos.data_ptr() == at
    assert torch.equal(rotation.half().cos, exact.half())
    assert torch.equal(rotation.float().cos, exact)  # computed again, not rounded
    assert rotation.to("meta").cos.is_meta


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tables_under_another_default_type(dtype: torch.dtype) -> None:
    usual: Any = next(m for m in bf.build(SPECS / "linear_attention.yaml").modules() if isinstance(m, Computed))
    torch.set_default_dtype(dtype)
    try:
        made: Any = next(m for m in bf.build(SPECS / "linear_attention.yaml").modules() if isinstance(m, Computed))
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.cos.dtype == dtype
    torch.testing.assert_close(made.cos.float(), usual.cos.to(dtype).float(), rtol=0, atol=1e-6)
