"""Recipes, and what they mean for the optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import blockforge as bf
from blockforge.train import DataError, Recipe, RunError, fit, list_recipes, load_recipe
from blockforge.train.optim import decay_groups, lr_factor, make_average, make_optimizer


def test_the_papers_recipe() -> None:
    recipe = load_recipe("imagenet-300e")
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.lr) == (300, 1024, "adamw", 1e-3)
    assert (recipe.weight_decay, recipe.warmup_epochs, recipe.schedule, recipe.min_lr) == (0.05, 20, "cosine", 1e-5)
    assert (recipe.label_smoothing, recipe.mixup, recipe.cutmix, recipe.erasing) == (0.1, 0.8, 1.0, 0.25)
    assert (recipe.ema, recipe.clip_grad, recipe.crop_pct) == (0.9999, 5.0, 0.875)
    assert recipe.rand_augment is not None


@pytest.mark.parametrize("name", list_recipes())
def test_every_packaged_recipe_is_valid_and_says_where_it_is_from(name: str) -> None:
    assert load_recipe(name).about


def test_a_file_may_extend_a_packaged_recipe_and_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: imagenet-300e\nepochs: 100\ncrop: {scale: [0.2, 1]}\nema: none\n")
    recipe = load_recipe(tmp_path / "mine.yaml", ["lr=5e-4", "crop.scale=[0.3, 1.0]", "rand_augment=none"])
    assert (recipe.epochs, recipe.lr, recipe.ema, recipe.rand_augment, recipe.mixup) == (100, 5e-4, None, None, 0.8)
    assert recipe.crop is not None
    assert recipe.crop.scale == [0.3, 1.0]
    assert load_recipe(recipe, {"epochs": 3}).epochs == 3


BAD = {
    "epoch: 3": r"(?s)1:1: error\[unknown-key\]: there is no key 'epoch' here.*did you mean 'epochs'",
    "epochs: many": r"(?s)1:9: error\[value\]: this should be a whole number.*hint: epochs: Passes over",
    "epochs: 0": r"this should be at least 1, not 0",
    "ema: 1.5": r"this should be less than 1\.0, not 1\.5",
    "optimizer: adam": r"this should be 'adamw' or 'sgd', not 'adam'",
    "crop: {size: 3}": r"(?s)no key 'size' here.*scale",
    "crop: {padding: 2, scale: [0.1, 1]}": r"a crop says either scale or padding",
    "crop: {}": r"a crop says either scale or padding",
    "batch_size: 2\naccumulate: 3": r"a batch of 2 cannot be cut into 3",
    "lr: -1": r"this should be more than 0",
    "- 3": r"recipe is a mapping",
}


@pytest.mark.parametrize("text", BAD)
def test_mistakes_are_shown_where_they_are(text: str, tmp_path: Path) -> None:
    base = "" if text.startswith("-") else "\nextends: micro\n"
    (tmp_path / "bad.yaml").write_text(text + base)
    with pytest.raises(bf.SpecError, match=BAD[text]):
        load_recipe(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lr", r"'lr' is not key=value\n.*\n.*\n  hint: as in --recipe-set lr=1e-4"),
        ("learning_rate=1", r"(?s)--recipe-set:1:1: error\[unknown-key\]: there is no key 'learning_rate' here"),
        ("lr=[", r"--recipe-set lr:2:1: error\[yaml\]"),
        ("lr.high=2", r"this should be a number"),
    ],
)
def test_overrides_that_are_wrong(given: str, message: str) -> None:
    with pytest.raises(bf.SpecError, match=message):
        load_recipe("micro", [given])


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(bf.SpecError, match=r"no recipe named 'mirco'\n  hint: did you mean 'micro'"):
        load_recipe("mirco")


def _recipe(**settings: Any) -> Recipe:
    return load_recipe({"epochs": 10, "batch_size": 1, "lr": 0.1, **settings})


def test_the_rate_warms_up_and_falls_to_its_end() -> None:
    factor = lr_factor(_recipe(warmup_epochs=2, warmup_lr=0.01, min_lr=0.001), steps_per_epoch=5)
    rates = [0.1 * factor(step) for step in range(51)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.055)
    assert rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx((0.1 + 0.001) / 2)
    assert rates[50] == pytest.approx(0.001)
    assert lr_factor(_recipe(schedule="constant"), 5)(30) == 1.0
    assert lr_factor(_recipe(schedule="linear"), 5)(25) == pytest.approx(0.5)
    assert lr_factor(_recipe(warmup_epochs=2), 5)(0) == pytest.approx(0.1)  # a tenth of the way, not nothing


def test_weight_decay_spares_what_it_should() -> None:
    model = bf.build("swin_tiny", {"stages.2.depth": 2}, num_classes=3)
    decayed, spared = decay_groups(model)
    names = {id(p): n for n, p in model.named_parameters()}
    assert len(decayed) + len(spared) == len(names)
    kept = {names[id(p)] for p in spared}
    assert model.no_weight_decay()
    assert model.no_weight_decay() <= kept
    assert all(p.ndim > 1 for p in decayed)
    assert {n for n in kept if n.endswith("norm.weight")}
    groups = make_optimizer(model, _recipe(weight_decay=0.3)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]


def test_the_average_starts_young_and_follows() -> None:
    model = nn.BatchNorm1d(2)
    average = make_average(model, 0.5)
    for value in (1.0, 3.0, 3.0):
        with torch.no_grad():
            model.weight.fill_(value)
            model.num_batches_tracked.fill_(int(value))
        average.update_parameters(model)
    first = 1.0 * (2 / 11) + 3.0 * (9 / 11)
    assert average.module.weight[0].item() == pytest.approx(first * (3 / 12) + 3.0 * (9 / 12))
    assert average.module.num_batches_tracked.item() == 3


def test_normalisation_that_cannot_be(net: Any, data: Any, fast: Any) -> None:
    two = {"mean": [0.5, 0.5], "std": [0.2, 0.2]}
    with pytest.raises(RunError, match=r"normalize needs 1 means and as many deviations above 0"):
        fit(net, data, {**fast, "normalize": two})
    assert issubclass(RunError, bf.BlockforgeError)
    assert issubclass(DataError, bf.BlockforgeError)
