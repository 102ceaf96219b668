"""What a training step holds: predicted on the meta device, measured by what torch's allocator says."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.blocks.mixers.dwconv import DepthwiseConv
from blockforge.cli import main
from blockforge.compiler.costs.training import OPTIMIZERS
from blockforge.kernels import backends, operators
from blockforge.kernels.costs import CostError
from blockforge.measure.memory import allocated_peak
from blockforge.testing.examples import build_on_maps
from blockforge.testing.figures import check_training_memory
from blockforge.testing.measure import peak_bytes_per_image, runnable_backends, slope
from blockforge.testing.steps import saved_on_cpu, saved_on_meta
from blockforge.units import format_bytes

NARROW = sorted((Path(__file__).parents[2] / "specs" / "narrow").glob("*.yaml"))
SMALLEST = [
    "convnext_t", "deit_s", "focalnet_t", "mambavision_t", "mlla_t", "mlp_mixer_b16", "poolformer_s12", "resnet50",
    "smlp_t", "smt_t", "sparx_mamba_t", "sparx_swin_t", "strip_mlp_t", "swin_tiny", "vmamba_tiny_s1l8", "vssd_micro",
]  # fmt: skip
MAKERS: dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "plain_sgd": lambda parameters: torch.optim.SGD(parameters, 0.1),
}


def allocated(arch: bf.Architecture, batch: int, optimizer: str, checkpointing: bool) -> int:
    """The peak of a second training step on the CPU, with the weights and what the optimiser keeps."""
    model = bf.build(arch, seed=0).train()
    model.set_grad_checkpointing(checkpointing)
    trained, size = MAKERS[optimizer](model.parameters()), arch.plan.input
    images, labels = torch.randn(batch, size.channels, *size.size), torch.zeros(batch, dtype=torch.long)

    def step() -> None:
        trained.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        trained.step()

    step()
    trained.zero_grad()
    gc.collect()
    peak = allocated_peak(step)
    kept = [t for state in trained.state.values() for t in state.values() if isinstance(t, Tensor)]
    return peak + sum(t.nbytes for t in (*model.parameters(), *model.buffers(), *kept))


def check(arch: bf.Architecture, batch: int, optimizer: str = "adamw") -> None:
    for checkpointing in (False, True):
        predicted = arch.training_memory(batch, optimizer, checkpointing)
        assert predicted.total == pytest.approx(allocated(arch, batch, optimizer, checkpointing), rel=0.1), predicted
        assert 0 < predicted.saved <= predicted.step


@pytest.mark.parametrize("name", runnable_backends())
@pytest.mark.parametrize("spec", NARROW, ids=lambda file: file.stem)
def test_prediction_is_what_is_allocated(spec: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "torch":  # as on a machine without numba
        monkeypatch.setattr(backends, "_installed", lambda module: False)
        for operator in operators().values():
            monkeypatch.setattr(operator, "chosen", {})
    check(bf.compile(spec, {"input.size": 128}, backend=name), batch=4)  # 32 px leave maps smaller than the kernels


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_optimizers_keep(optimizer: str) -> None:
    check(bf.compile("deit_s", {"stages.0.depth": 3, "input.size": 64}), 2, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_prediction_for_every_family_of_the_zoo(name: str) -> None:
    check(bf.compile(name), batch=1)
    check(bf.compile(name, {"input.size": 96}) if "mixer" not in name else bf.compile(name), batch=4)


def test_nothing_is_allocated_and_no_generator_moves() -> None:
    arch, before = bf.compile("smt_t"), torch.random.get_rng_state()
    held = allocated_peak(lambda: arch.training_memory(4096))
    assert held < 2**20  # of scalars, and of what torch keeps of random states
    assert torch.equal(torch.random.get_rng_state(), before)
    assert arch.training_memory(4096).total > 400e9


def test_it_grows_with_the_batch_and_shrinks_with_checkpointing() -> None:
    arch = bf.compile("swin_tiny")
    one, two, three = (arch.training_memory(n) for n in (8, 16, 24))
    assert three.saved - two.saved == pytest.approx(two.saved - one.saved, rel=0.01)
    assert arch.training_memory(16, checkpointing=True).saved < 0.3 * two.saved
    assert one.gradients == 4 * arch.params
    assert one.optimizer_state == 8 * arch.params
    assert arch.training_memory(8, "sgd").total == one.total - 4 * arch.params


def test_equal_networks_are_rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = bf.compile("vssd_micro").training_memory(3)
    monkeypatch.setattr("blockforge.compiler.costs.training.rehearse", None)
    assert bf.compile("vssd_micro").training_memory(3) == first


def test_wrong_wishes_are_refused() -> None:
    arch = bf.compile("smt_t")
    with pytest.raises(CostError, match="no optimizer named 'adam'\n  hint: did you mean 'adamw'"):
        arch.training_memory(8, "adam")
    with pytest.raises(CostError, match="one image at least, not 0"):
        arch.training_memory(0)


class _Lying(nn.Module):
    """Keeps more where there are values than where there are none."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x if x.is_meta else (x * x).exp().log().sigmoid()


def test_a_block_that_keeps_something_else_on_the_meta_device_breaks_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    op = DepthwiseConv()
    check_training_memory(op, Shape(7, 5, 24))
    monkeypatch.setattr(DepthwiseConv, "build", lambda self, shape: _Lying())
    with pytest.raises(AssertionError, match="needs 10080 bytes an image on numba, on the CPU 13440"):
        check_training_memory(op, Shape(7, 5, 24))


def test_a_block_that_looks_at_values_is_named_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    monkeypatch.setattr(DepthwiseConv, "build", lambda self, shape: Looks())
    arch = bf.compile(Path(__file__).parents[1] / "specs" / "dwconv.yaml", {"name": "looks"})
    with pytest.raises(CostError, match=r"does not run on the meta device.*\n  hint: a block's forward pass may look"):
        arch.training_memory(2)


def test_build_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    arch = bf.compile("deit_s", {"stages.0.depth": 1, "input.size": 32})
    given = ["--set", "stages.0.depth=1", "--set", "input.size=32"]
    assert main(["build", "deit_s", *given, "--batch", "8", "--optimizer", "sgd"]) == 0
    plain, checkpointed = (arch.training_memory(8, "sgd", on) for on in (False, True))
    shown = f"training: 8 images, SGD with momentum: {format_bytes(plain.total)} "
    assert f"{shown}({format_bytes(checkpointed.total)} with checkpointing)" in capsys.readouterr().out
    assert main(["build", "deit_s", *given, "--optimizer", "adamv"]) == 1
    assert "hint: did you mean 'adamw'?" in capsys.readouterr().err


@pytest.mark.parametrize("dim", [8, 96])
@pytest.mark.parametrize("name", registry.blocks("norm"))
def test_norms_keep_their_statistics(name: str, dim: int) -> None:
    """To the byte, in training and in inference: two numbers a position are an eighth of a map of 8 channels."""
    op, place = registry.make(name, {}, "norm"), (Shape(7, 5, dim),)
    predicted, kept = (
        slope(lambda batch, of=of: of(op, place, batch, "numba")) for of in (saved_on_meta, saved_on_cpu)
    )
    assert predicted == kept
    module = build_on_maps(op, *place).eval()
    assert 4 * op.workspace(*place) == peak_bytes_per_image(module, lambda batch: (torch.randn(batch, *place[0]),))
