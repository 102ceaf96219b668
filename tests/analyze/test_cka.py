"""CKA beside its definition, written out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from blockforge.analyze import AnalysisError, similarity
from blockforge.analyze.cka import grams, hsic, layer_names
from blockforge.compiler.lowering.backbone import Backbone

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]


def direct_hsic(X: Tensor, Y: Tensor) -> float:
    """The estimator as the paper writes it, of features with a row for each example."""
    n = len(X)
    K, L = X @ X.T, Y @ Y.T
    K, L = K - torch.diag(K.diag()), L - torch.diag(L.diag())
    one = torch.ones(n, 1, dtype=X.dtype)
    middle = (one.T @ K @ one) * (one.T @ L @ one) / ((n - 1) * (n - 2))
    return float((torch.trace(K @ L) + middle - 2 / (n - 2) * one.T @ K @ L @ one) / (n * (n - 3)))


def direct_cka(X: Tensor, Y: Tensor) -> float:
    return direct_hsic(X, Y) / (direct_hsic(X, X) * direct_hsic(Y, Y)) ** 0.5


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def maps(model: Backbone, x: Tensor) -> list[Tensor]:
    """What each stage gives, flattened, in double precision."""
    with torch.no_grad():
        found = model.forward_intermediates(x, intermediates_only=True)
    return [m.permute(0, 2, 3, 1).flatten(1).double() for m in found]


def test_hsic_is_the_papers_estimator() -> None:
    X, Y = features(7, 5), features(7, 9, seed=1) + 3.0
    gram_X, gram_Y = ((F - F.mean(0)) @ (F - F.mean(0)).T for F in (X, Y))
    assert float(hsic(gram_X[None], gram_Y[None])) == pytest.approx(direct_hsic(X, Y), rel=1e-9)


def test_hsic_is_unbiased() -> None:
    """Its mean over all batches of four is the value of the whole: what makes minibatches right."""
    X, Y = features(7, 3), features(7, 4, seed=1)
    Y = Y + X @ features(3, 4, seed=2)
    chosen = [list(c) for c in combinations(range(7), 4)]
    mean = sum(float(hsic((X[c] @ X[c].T)[None], (Y[c] @ Y[c].T)[None])) for c in chosen) / len(chosen)
    assert mean == pytest.approx(direct_hsic(X, Y), rel=1e-9)


def test_one_batch_equals_the_direct_computation(small: Small, noise: Noise) -> None:
    model = small("attention")
    x = noise(model, 8)
    found = similarity(model, [x])
    first, last = maps(model, x)
    ends = [found.rows.index("stages.0.layers.0"), found.rows.index("stages.1.layers.1")]
    expected = [[direct_cka(a, b) for b in (first, last)] for a in (first, last)]
    torch.testing.assert_close(found.values[ends][:, ends], torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)


def test_minibatches_divide_sums_not_values(small: Small, noise: Noise) -> None:
    model = small("attention")
    batches = noise(model, 12).split(6)
    found = similarity(model, batches)
    parts = [maps(model, b) for b in batches]
    cross, first, last = (
        sum(direct_hsic(p[i], p[j]) for p in parts) for i, j in ((0, 1), (0, 0), (1, 1))
    )  # fmt: skip
    at = found.rows.index("stages.0.layers.0"), found.columns.index("stages.1.layers.1")
    assert float(found.values[at]) == pytest.approx(cross / (first * last) ** 0.5, rel=1e-5)


def test_within_a_network_it_is_symmetric_with_ones(small: Small, noise: Noise) -> None:
    model = small("attention")
    found = similarity(model, [noise(model, 6)])
    assert found.rows == found.columns
    assert found.rows[0] == "stem"
    assert "stages.1.downsample" in found.rows
    torch.testing.assert_close(found.values, found.values.T)
    torch.testing.assert_close(found.values.diagonal(), torch.ones(len(found.rows)).double())


def test_between_networks(small: Small, noise: Noise) -> None:
    a, b = small("attention"), small("nc_ssd", {"input.size": [40, 56], "stages.1.depth": 3})
    x = noise(a, 6)
    found = similarity(a, [x], b)
    assert (len(found.rows), len(found.columns)) == tuple(found.values.shape) == (5, 6)
    x_last, y_last = maps(a, x)[-1], maps(b, x)[-1]
    assert float(found.values[-1, -1]) == pytest.approx(direct_cka(x_last, y_last), rel=1e-5)


def test_windows_of_an_image_stay_together(small: Small, noise: Noise) -> None:
    model = small("attention", {"stages.0.window": 4})
    x = noise(model, 5)
    rows: list[Tensor] = []
    hook = model.stages.get_submodule("0.layers.0").register_forward_hook(
        lambda _, args, value: rows.append(value.detach())
    )
    model(x)
    hook.remove()
    tiles = len(rows[0]) // 5
    by_hand = torch.stack([rows[0][i * tiles : (i + 1) * tiles].flatten() for i in range(5)]).double()
    centred = by_hand - by_hand.mean(0)
    names = layer_names(model)
    at = list(names.values()).index("stages.0.layers.0")
    torch.testing.assert_close(grams(model, x, names)[at], centred @ centred.T)


def test_a_layer_that_gives_every_image_the_same_is_nan(small: Small, noise: Noise) -> None:
    model = small("attention")
    with torch.no_grad():
        for parameter in model.stem.parameters():
            parameter.zero_()
    found = similarity(model, [noise(model, 5)])
    assert torch.isnan(found.values[0]).all()
    assert found.as_dict()["cka"][0][0] is None


def test_one_stage_alone(small: Small, noise: Noise) -> None:
    model = small("attention")
    found = similarity(model, [noise(model, 5)], stage=1)
    assert found.rows == ("stages.1.downsample", "stages.1.layers.0", "stages.1.layers.1")


def test_mistakes(small: Small, noise: Noise) -> None:
    model = small("attention")
    with pytest.raises(AnalysisError, match=r"batches of 4 images or more"):
        similarity(model, [noise(model, 3)])
    with pytest.raises(AnalysisError, match=r"no stage 2 in attention\n  hint: 0 to 1"):
        similarity(model, [noise(model, 4)], stage=2)
