"""Training-free scores: known answers on toys, every family, and nothing that they leave behind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import ScoreError
from blockforge.search.objectives.network import shrunk
from blockforge.search.objectives.registry import FACTORIES, make
from blockforge.search.objectives.scores.expressivity import Expressivity, expressivity_of, feature_entropy
from blockforge.search.objectives.scores.naswot import agreement, log_determinant
from blockforge.search.objectives.scores.zico import steadiness, zico_of
from blockforge.spec import Spec
from blockforge.testing import randomise

NARROW = Path(__file__).parents[2] / "specs" / "narrow"
FAMILIES = sorted(file.stem for file in NARROW.glob("*.yaml"))
SCORES = ("expressivity", "naswot", "zico")
VIT: dict[str, Any] = {
    "input.size": 64,
    "num_classes": 10,
    "stages.0.dim": 24,
    "stages.0.depth": 2,
    "stages.0.let.num_heads": 2,
}


def images(count: int, model: Backbone, seed: int = 0) -> Tensor:
    size = model.arch.plan.input
    return torch.randn(count, size.channels, *size.size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small(tiny: Spec) -> bf.Architecture:
    rng = random.Random(0)
    return bf.compile(tiny, ask=lambda h: rng.choice(h.labels) if h.kind == "choice" else h.high)


# --- known answers


@pytest.mark.parametrize("shape", [(2, 4, 4, 8), (1, 2, 3, 16)])
def test_entropy_of_equal_directions_is_the_log_of_their_number(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, dim = math.prod(shape[:-1]), shape[-1]
    directions = min(rows - 2, dim)
    drawn = torch.randn(rows, directions, generator=generator)
    parts = torch.linalg.svd(drawn - drawn.mean(0), full_matrices=False)
    flat = F.pad(parts.U @ parts.Vh, (0, dim - directions))  # equal singular values
    assert feature_entropy(flat.view(shape)) == pytest.approx(math.log(directions), abs=1e-3)


def test_entropy_of_one_direction_and_of_nothing_is_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(2, 3, 3, 1, generator=generator) * torch.randn(8, generator=generator)
    assert feature_entropy(line) == pytest.approx(0.0, abs=1e-3)
    assert feature_entropy(torch.full((2, 3, 3, 8), 7.0)) == 0.0


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_entropy_does_not_depend_on_scale(scale: float) -> None:
    x = torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    assert feature_entropy(x * scale) == pytest.approx(feature_entropy(x), rel=1e-4)


class Gate(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


ACTS = (
    *(F.gelu, F.silu, F.relu, nn.GELU(), nn.SiLU(), nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.PReLU()),
    *(torch.relu, F.relu_, torch.ops.aten.gelu_, registry.make("star_relu", {}, "act").build(Shape(1, 1, 3))),
)


@pytest.mark.parametrize("act", ACTS)
def test_naswot_of_a_linear_toy(act: Callable[[Tensor], Tensor]) -> None:
    """Codes by hand, whatever the activation and however it is called."""
    x = torch.tensor([[2.0, 1.0, -1.0], [3.0, -1.0, -2.0], [-1.0, -1.0, 4.0]])
    toy: Any = nn.Sequential(nn.Linear(3, 3, bias=False), Gate(act))
    toy[0].weight.data.copy_(torch.eye(3))
    codes = [(1, 1, 0), (1, 0, 0), (0, 0, 1)]
    expected = torch.tensor([[sum(p == q for p, q in zip(a, b, strict=True)) for b in codes] for a in codes])
    kernel = agreement(toy, x)
    assert torch.equal(kernel, expected.double())
    assert log_determinant(kernel) == pytest.approx(math.log(abs(float(torch.linalg.det(expected.double())))))


def test_naswot_refuses_what_it_cannot_tell() -> None:
    toy: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(ScoreError, match="do not tell two images apart"):
        log_determinant(agreement(toy, torch.ones(2, 3)))
    with pytest.raises(ScoreError, match="no activation"):
        agreement(toy[0], torch.ones(2, 3))
    with pytest.raises(ScoreError, match="not finite"):
        agreement(toy, torch.full((2, 3), math.nan))


def test_steadiness_by_hand() -> None:
    assert steadiness(torch.tensor([[1.0, -3.0], [3.0, 3.0]])) == 2.0  # mean 2 over deviation 1; the other has none
    assert steadiness(torch.tensor([[1.0, 1.0], [3.0, 5.0]])) == 2.0 + 1.5
    with pytest.raises(ScoreError, match="a gradient is not finite"):
        steadiness(torch.tensor([[math.inf], [1.0]]))


def test_zico_of_a_linear_toy() -> None:
    """The gradient of cross-entropy behind a linear layer is (p - y) x, the mean over the batch."""
    generator = torch.Generator().manual_seed(0)
    toy: Any = nn.Linear(3, 2)
    weight, bias = (p.detach() for p in toy.parameters())
    batches = [(torch.randn(5, 3, generator=generator), torch.randint(2, (5,), generator=generator)) for _ in range(2)]
    gradients = []
    for x, labels in batches:
        error = (x @ weight.T + bias).softmax(1) - F.one_hot(labels, 2)
        gradients.append(error.T @ x / 5)
    a, b = (g.abs() for g in gradients)
    expected = math.log(float(((a + b) / 2 / ((a - b).abs() / 2)).sum()))
    assert zico_of(toy, batches) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ScoreError, match="no gradient differs"):
        zico_of(toy, [batches[0], batches[0]])


# --- every family


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_finite_scores(family: str) -> None:
    arch = shrunk(bf.compile(NARROW / f"{family}.yaml"), 64)
    model = bf.build(arch, seed=0)
    x = images(4, model)
    x[3] = x[0]
    kernel = agreement(model, x)
    # Equal images have equal codes only if every activation's first axis is the batch.
    assert float(kernel[0, 3]) == pytest.approx(float(kernel[0, 0]), rel=1e-3)
    assert log_determinant(kernel[:3, :3]) > 0
    assert expressivity_of(model, x) > 0
    labels = torch.arange(4)
    assert math.isfinite(zico_of(model, [(x, labels), (x.flip(2), labels)]))


def test_position_vectors_do_not_keep_images_large() -> None:
    arch = bf.compile("deit_s", VIT)
    assert shrunk(arch, 32).plan.input.size == [32, 32]
    assert shrunk(arch, 500) is arch
    assert math.isfinite(Expressivity(size=32, images=2)(arch))


@pytest.mark.parametrize("size", [224, [65, 130]])
def test_images_keep_their_shape_and_stay_large_enough(size: int | list[int]) -> None:
    found = shrunk(bf.compile("smt_t", {"input.size": size}), 40).plan.input.size
    assert found == ([64, 64] if size == 224 else [33, 66])


# --- nothing is left behind


@pytest.mark.parametrize("score", SCORES)
def test_scores_repeat_and_follow_their_seed(score: str, small: bf.Architecture) -> None:
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    first = make(f"{score}:images=4")(small)
    assert make(f"{score}:images=4")(small) == first
    assert make(f"{score}:images=4,seed=1")(small) != first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def of_model(score: str, model: Backbone) -> float:
    x, labels = images(4, model), torch.arange(4)
    if score == "zico":
        return zico_of(model, [(x, labels), (images(4, model, 1), labels)])
    return expressivity_of(model, x) if score == "expressivity" else log_determinant(agreement(model, x))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_as_it_was(score: str, training: bool) -> None:
    model = bf.build(shrunk(bf.compile(NARROW / "resnet.yaml"), 64), seed=0)
    randomise(model).train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    of_model(score, model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("score", SCORES)
def test_running_statistics_do_not_count(score: str) -> None:
    model = bf.build(shrunk(bf.compile(NARROW / "resnet.yaml"), 64), seed=0)
    first = of_model(score, model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(100.0)  # type: ignore[union-attr]
    assert of_model(score, model) == first


@pytest.mark.parametrize("score", SCORES)
def test_layer_scale_counts_as_one_and_drop_path_is_off(score: str) -> None:
    plain = bf.compile("deit_s", VIT)
    scaled = bf.compile("deit_s", {**VIT, "defaults.scale": 1e-6, "drop_path": 0.5})
    one = bf.compile("deit_s", {**VIT, "defaults.scale": 1.0})
    found = [of_model(score, bf.build(arch, seed=0)) for arch in (plain, scaled, one)]
    assert found[1] == found[2] == pytest.approx(found[0], rel=1e-5)


def test_every_score_can_be_named() -> None:
    assert {*SCORES, "micro", "train", "latency"} <= set(FACTORIES.names())


def test_zico_needs_two_batches(small: bf.Architecture) -> None:
    with pytest.raises(ScoreError, match="1 is too few"):
        make("zico:batches=1")(small)
