"""Trainers and shards of others take a built model as it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm
from torch import Tensor, nn

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import Layer

SPEC = Path(__file__).parents[1] / "specs" / "patch_embed.yaml"


def small() -> Backbone:
    return bf.build(SPEC, seed=0)


def batches(count: int, model: Backbone) -> list[tuple[Tensor, Tensor]]:
    g, size = torch.Generator().manual_seed(1), model.arch.plan.input.size
    return [(torch.randn(4, 3, *size, generator=g), torch.randint(0, 10, (4,), generator=g)) for _ in range(count)]


def step(model: nn.Module, x: Tensor, target: Tensor, optimiser: torch.optim.Optimizer) -> Tensor:
    loss = nn.functional.cross_entropy(model(x), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


def trained(model: Backbone, count: int = 3) -> list[Tensor]:
    """Losses of plain training, what every wrapper must give too."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    return [step(model, x, t, optimiser) for x, t in batches(count, model)]


def test_layers_are_named_for_wrapping() -> None:
    model = small()
    named = [m for m in model.modules() if type(m).__name__ in model._no_split_modules]
    assert named == [m for m in model.modules() if isinstance(m, Layer)]
    assert len(named) == model.arch.depth


# --- FSDP2


def shard(model: Backbone, world: int) -> Backbone:
    """As docs/integrations.md says."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh("cpu", (world,))
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "forward_features")
    return model


def fsdp_process(rank: int, world: int, folder: str) -> None:
    """Train sharded, each process on its part of the batches; the losses and the whole weights go to a file."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", rank=rank, world_size=world, init_method=f"file://{folder}/meeting", device_id=None
    )
    try:
        model = shard(small(), world)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        part = slice(rank * 4 // world, (rank + 1) * 4 // world)
        losses = [step(model, x[part], t[part], optimiser) for x, t in batches(3, model)]
        kept = sum(p.to_local().numel() for p in model.parameters())  # type: ignore[attr-defined]
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        with torch.no_grad():
            maps = model.eval().forward_features(batches(1, model)[0][0])
        torch.save({"losses": losses, "state": state, "kept": kept, "maps": maps}, f"{folder}/{rank}.pth")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fsdp2_trains_as_one_process_does(world: int, tmp_path: Path) -> None:
    if world == 1:
        fsdp_process(0, 1, str(tmp_path))
    else:
        torch.multiprocessing.spawn(fsdp_process, (world, str(tmp_path)), nprocs=world)
    plain = small()
    losses = torch.stack(trained(plain))
    found = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(world)]
    torch.testing.assert_close(sum(torch.stack(f["losses"]) for f in found) / world, losses)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(found[0]["state"][name], value, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        maps = plain.eval().forward_features(batches(1, plain)[0][0])
    assert all(torch.allclose(f["maps"], maps, rtol=1e-4, atol=1e-4) for f in found)
    params = sum(p.numel() for p in plain.parameters())
    assert sum(f["kept"] for f in found) == params
    assert max(f["kept"] for f in found) < params * (0.7 if world > 1 else 1.01)


# --- accelerate


@pytest.fixture
def accelerate() -> Iterator[Any]:
    module = pytest.importorskip("accelerate")
    yield module
    module.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_prepares(accelerate: Any) -> None:
    expected = trained(small())
    accelerator = accelerate.Accelerator(cpu=True)
    model = small()
    model, optimiser = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for (x, target), loss in zip(batches(3, model), expected, strict=True):
        found = nn.functional.cross_entropy(model(x), target)
        torch.testing.assert_close(found, loss)
        optimiser.zero_grad()
        accelerator.backward(found)
        optimiser.step()
    assert isinstance(accelerator.unwrap_model(model), Backbone)


def test_accelerate_in_bfloat16(accelerate: Any) -> None:
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = small()
    ((x, _),) = batches(1, model)
    expected = model(x)
    prepared = accelerator.prepare(model)
    y = prepared(x)
    assert y.dtype == torch.float32
    assert 0 < ((y - expected).norm() / expected.norm()).item() < 0.1
    assert torch.equal(accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)


def test_accelerate_finds_what_to_shard(accelerate: Any) -> None:
    plugin = accelerate.FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    model = small()
    plugin.set_auto_wrap_policy(model)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {Layer}


# --- Lightning


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of lightning's own making, and its advice
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightning_trains(tmp_path: Path) -> None:
    if find_spec("torchvision"):  # torchmetrics imports one that is installed
        load_timm()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.", DeprecationWarning)  # of lightning's imports
        lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.losses = small(), []

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.losses.append(loss.detach())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module, quiet = Classifier(), {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(fast_dev_run=3, accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(batches(3, module.model), batch_size=None))  # type: ignore[arg-type]
    torch.testing.assert_close(torch.stack(module.losses), torch.stack(trained(small())))
