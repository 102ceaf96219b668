"""Training end to end, in memory and in a folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.train import Data, DataError, DivergedError, EpochRecord, RunError, evaluate, fit, loop
from blockforge.train.checkpoint import CHECKPOINT
from blockforge.train.epoch_progress import EpochProgress
from blockforge.train.optim import clip_gradients


def test_a_network_learns_and_the_figures_are_its_own(net: Any, data: Data, fast: Any) -> None:
    result = fit(net, data, {**fast, "epochs": 8})
    assert result.final == result.accuracies[-1] == pytest.approx(100.0)
    assert [r.epoch for r in result.history] == list(range(1, 9))
    assert result.history[-1].steps == 8 * (72 // 16)
    assert result.best == max(result.accuracies)
    assert result.seconds == pytest.approx(sum(r.seconds for r in result.history), rel=0.2)
    again = evaluate(result.model, data, recipe=fast)
    assert (again.top1, again.loss) == (result.final, pytest.approx(result.history[-1].val_loss, rel=1e-5))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(net: Any, data: Data, fast: Any) -> None:
    a, b, c = (fit(net, data, fast, seed=seed).weights for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.fc.weight"], c["head.fc.weight"])


def test_the_callers_random_numbers_are_left_alone(net: Any, data: Data, fast: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(net, data, fast, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_built_network_is_trained_in_place(net: Any, data: Data, fast: Any) -> None:
    model = bf.build(net, num_classes=3, seed=0)
    before = model.head.fc.weight.clone()
    result = fit(model, data, fast, epochs=1)
    assert result.model is model
    assert not torch.equal(model.head.fc.weight, before)


def test_classes_follow_the_data_unless_the_spec_says(net: Any, data: Data, fast: Any) -> None:
    assert fit(net, data, fast, epochs=1).model.num_classes == 3
    with pytest.raises(DataError, match=r"spec says num_classes 7, stripes has 3 classes\n  hint: --set num_classes=3"):
        fit({**net, "num_classes": 7}, data, fast)
    with pytest.raises(
        DataError, match=r"network has 1000 classes, stripes has 3\n  hint: bf.build\(..., num_classes=3"
    ):
        fit(bf.build(net), data, fast)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"accumulate": 3, "clip_grad": 1.0},
        {"optimizer": "sgd", "schedule": "linear"},
        {"precision": "bf16", "schedule": "constant"},
        {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
        {"crop": {"padding": 1}, "flip": 0.5, "erasing": 0.5},
        {"crop": {"scale": [0.5, 1.0]}, "rand_augment": {"group": 5}},
    ],
    ids=lambda c: "-".join(c),
)
def test_every_setting_trains(net: Any, data: Data, fast: Any, changes: dict[str, Any]) -> None:
    plain = fit(net, data, fast, epochs=1).weights
    result = fit(net, data, {**fast, **changes}, epochs=1)
    assert all(v.isfinite().all() for v in result.weights.values())
    assert not torch.equal(result.weights["head.fc.weight"], plain["head.fc.weight"])


def test_pieces_of_a_batch_add_up_to_the_batch(net: Any, data: Data, fast: Any) -> None:
    still = {**net, "drop_path": 0.0, "stem": {"op": "patch_embed", "patch": 2}}  # nothing that depends on the batch
    recipe = {**fast, "optimizer": "sgd", "epochs": 1}
    whole, pieces = fit(still, data, recipe).weights, fit(still, data, {**recipe, "accumulate": 3}).weights
    for key, value in whole.items():
        torch.testing.assert_close(pieces[key], value, rtol=1e-4, atol=1e-5)


def test_a_folder_holds_the_run(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    result = fit(net, data, fast, out=tmp_path / "a" / "run")
    run = tmp_path / "a" / "run"
    names = {p.name for p in run.iterdir()}
    assert {
        "model.safetensors",
        "spec.yaml",
        "best.safetensors",
        "log.csv",
        "curves.png",
        CHECKPOINT,
        "run.json",
    } <= names
    assert not [n for n in names if n.endswith(".tmp")]
    assert list((run / "tensorboard").iterdir())
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert [float(r["top1"]) for r in rows] == result.accuracies
    loaded = bf.load_model(run).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in result.weights.items())
    found = evaluate(run / "spec.yaml", data, weights=run / "model.safetensors")
    assert (found.top1, found.images) == (result.final, 24)
    assert json.loads((run / "run.json").read_text())["preprocess"]["classes"] == ["a", "b", "c"]


def test_a_run_that_is_done_stays_as_it_is(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    first = fit(net, data, fast, out=tmp_path / "run")
    again = fit(net, data, fast, out=tmp_path / "run")
    assert again.history == first.history
    assert all(torch.equal(again.weights[k], v) for k, v in first.weights.items())


def test_another_run_in_the_same_folder_is_refused(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    fit(net, data, fast, epochs=1, out=tmp_path / "run")
    with pytest.raises(RunError, match=r"(?s)holds another run:\n  recipe.lr: 0.01 there, 0.02 here.*--out"):
        fit(net, data, {**fast, "lr": 0.02}, epochs=1, out=tmp_path / "run")
    with pytest.raises(RunError, match=r"network: \w+ there, \w+ here"):
        fit(net, data, fast, epochs=1, overrides={"stages.0.dim": 8}, out=tmp_path / "run")
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"broken")
    with pytest.raises(RunError, match=r"checkpoint\.safetensors cannot be read: .*\n  hint: remove it"):
        fit(net, data, fast, epochs=1, out=tmp_path / "run")


def test_a_file_in_the_folders_place(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match=r"cannot write to .*run: it is not a folder"):
        fit(net, data, fast, out=tmp_path / "run")


def test_a_diverging_run_keeps_the_weights_before_it(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError,
        match=r"became (nan|inf) at step \d+, .*\n  no epoch had ended.* kept in .*run\n  hint: a lower lr",
    ) as e:
        fit(net, data, {**fast, "lr": 1e30, "optimizer": "sgd"}, out=tmp_path / "run")
    assert e.value.result.history == []
    kept = bf.load_model(tmp_path / "run").state_dict()
    start = bf.build(net, num_classes=3, seed=0).state_dict()
    assert all(torch.equal(kept[k], v) for k, v in start.items())


def test_a_diverging_run_keeps_its_last_good_epoch(
    net: Any, data: Data, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.Trainer._step

    def poisoned(self: loop.Trainer, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return real(self, images, labels) * (float("nan") if self.position.step == 6 else 1)

    monkeypatch.setattr(loop.Trainer, "_step", poisoned)
    with pytest.raises(DivergedError, match=r"became nan at step 7.*\n  the weights of epoch 1 are kept\n") as e:
        fit(net, data, fast)
    result = e.value.result
    assert len(result.history) == 1
    assert evaluate(result.model, data, recipe=fast).loss == pytest.approx(result.history[0].val_loss, rel=1e-6)


class _StopError(Exception):
    """What a caller ends a run with."""


class _FirstEpoch(EpochProgress):
    def epoch(self, record: EpochRecord) -> None:
        raise _StopError(f"{record.top1}")


def test_a_reporter_may_end_the_run(net: Any, data: Data, fast: Any) -> None:
    with pytest.raises(_StopError, match=r"\d+"):
        fit(net, data, {**fast, "epochs": 1000}, progress=_FirstEpoch())


@pytest.mark.parametrize("scale", [0.01, 100.0, float("nan"), float("inf")])
def test_gradients_are_clipped_as_torch_clips_them(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(shape, generator=generator) * scale for shape in ((4, 3), (5,))]
    ours, theirs = ([torch.nn.Parameter(torch.zeros_like(g)) for g in grads] for _ in range(2))
    for parameters in (ours, theirs):
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
    clip_gradients([*ours, torch.nn.Parameter(torch.zeros(2))], 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0, equal_nan=True)
