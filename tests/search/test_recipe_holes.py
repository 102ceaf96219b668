"""Holes in the recipe, searched beside those of the spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_net import small_net

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import SearchError
from blockforge.search.report.html import importances
from blockforge.spec import to_yaml
from blockforge.train import load_recipe
from blockforge.train.recipe_space import recipe_space

NET = small_net({"$int": [8, 10]}, num_classes=3)
RECIPE: dict[str, Any] = {
    "extends": "micro",
    "lr": {"$log": [1e-4, 1e-2]},
    "crop": {"$choice": {"off": "none", "on": {"padding": {"$int": [1, 2]}}}},
}
CODE = """
def score(arch, trial):
    recipe = trial.recipe
    return {"score": recipe.lr, "padding": recipe.crop.padding if recipe.crop else 0}

def blind(arch):
    return arch.params
"""


@pytest.fixture
def code(tmp_path: Path) -> str:
    (tmp_path / "by_recipe.py").write_text(CODE)
    return str(tmp_path / "by_recipe.py")


@pytest.fixture
def data(tmp_path: Path) -> str:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images, labels=np.arange(60) % 3)
    return f"npz:{tmp_path / 'noise.npz'}"


def test_holes_are_asked_for_where_they_are_met() -> None:
    space = recipe_space(RECIPE)
    assert list(space.holes) == ["recipe.lr", "recipe.crop", "recipe.crop.padding"]
    asked: list[str] = []
    recipe = space.asked(lambda hole: asked.append(hole.name) or (hole.labels or (hole.low,))[0])
    assert asked == ["recipe.lr", "recipe.crop"]
    assert (recipe.lr, recipe.crop) == (1e-4, None)
    assert space.middle()["recipe.lr"] == pytest.approx(1e-3)
    assert recipe.hash != space.filled(space.middle()).hash
    assert recipe.hash == load_recipe({"extends": "micro", "lr": 1e-4, "workers": 3}).hash


def test_they_are_searched_recorded_and_written(code: str, tmp_path: Path) -> None:
    """Every choice of a recipe is a candidate of its own, also of one network; the search goes on with them."""
    settings: dict[str, Any] = {"objective": f"{code}:score", "recipe": RECIPE, "out": tmp_path / "run"}
    result = bf.search(NET, trials=8, **settings)
    assert result.evaluated == 8
    assert len({t.hash for t in result.ranked}) < 4
    assert all(t.score == t.holes["recipe.lr"] for t in result.ranked)
    assert {t.figures["padding"] for t in result.ranked} >= {0, 1}
    assert all(("recipe.crop.padding" in t.holes) == (t.figures["padding"] > 0) for t in result.ranked)
    assert max(importances(result), key=importances(result).get) == "recipe.lr"  # type: ignore[arg-type]
    header = (tmp_path / "run" / "trials.csv").read_text().partition("\n")[0]
    assert header.endswith("stages.0.dim,recipe.lr,recipe.crop,recipe.crop.padding")
    assert "recipe.lr" in (tmp_path / "run" / "report.html").read_text()
    best = next((tmp_path / "run" / "best").glob("rank1_*_recipe.yaml"))
    assert load_recipe(best) == result.recipe(result.ranked[0])
    assert load_recipe(best).lr == result.ranked[0].score
    notes = bf.load(next(p for p in best.parent.glob("rank1_*.yaml") if p != best)).tree["about"]["search"]
    assert notes["recipe"]["lr"] == result.ranked[0].score
    settings.pop("recipe")
    again = bf.search(None, trials=10, **settings)
    assert again.evaluated == 10
    assert [t.holes for t in again.trials[:8]] == [t.holes for t in result.trials[:8]]
    once = bf.search(NET, trials=10, **{**settings, "recipe": RECIPE, "out": None})
    assert [t.holes for t in once.trials] == [t.holes for t in again.trials]


def test_trainings_follow_them_and_so_does_the_confirmation(data: str, tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(to_yaml(bf.load(NET)))
    (tmp_path / "recipe.yaml").write_text(json.dumps({**RECIPE, "lr": {"$choice": [1e-5, 1e-2]}, "batch_size": 16}))
    more = ["--data", data, "--recipe", str(tmp_path / "recipe.yaml"), "--objective", f"micro:steps=2,data={data}"]
    confirm = ["--confirm", "1", "--confirm-seeds", "3", "--epochs", "1", "--out", str(tmp_path / "run")]
    start = str(tmp_path / "start.yaml")
    Path(start).write_text(to_yaml(bf.load({**NET, "name": "start", "stages": [{**NET["stages"][0], "dim": 8}]})))
    arguments = ["search", str(tmp_path / "net.yaml"), "--trials", "2", "--start", start, *more, *confirm]
    assert main(arguments) == 0
    result = bf.search.open_result(tmp_path / "run")  # type: ignore[attr-defined]
    first = result.trials[0]
    assert (first.start, first.holes["recipe.lr"], first.holes["recipe.crop"]) == ("start", 1e-5, "off")
    assert result.confirmed is not None
    assert result.confirmed.left == 0
    named = {t.candidate for t in result.ranked}
    assert {network for network, _ in result.confirmed.trainings} <= named
    for folder in (tmp_path / "run" / "confirm").glob("*/*"):
        network = folder.name.rpartition("-")[0]
        lr = next(t.holes["recipe.lr"] for t in result.ranked if t.candidate == network)
        assert json.loads((folder / "run.json").read_text())["settings"]["recipe"]["lr"] == lr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "the recipe of each on" in page
    assert list((tmp_path / "run" / "best").glob("rank1_*.safetensors"))


@pytest.mark.parametrize(
    ("recipe", "objective", "message"),
    [
        ({"lr": {"$log": [0, 1]}}, "train:data=digits", "not above 0"),
        ({"lr": {"$float": [0.0, 1.0]}}, "train:data=digits", "more than 0"),
        ({"workers": {"$int": [1, 2]}}, "train:data=digits", "'workers' changes no result"),
        ({"lr": "$x"}, "train:data=digits", "a recipe has no names to look up"),
        ({"lr": {"$log": [1e-4, 1e-2]}}, "params", "no objective trains by it"),
        ({"lr": {"$log": [1e-4, 1e-2]}}, "CODE:blind", "no objective trains by it"),
        ({"lr": {"$log": [1e-4, 1e-2]}}, "train:data=digits,recipe=micro", "names a recipe, and --recipe is another"),
        ({"epochs": {"$int": [1, 9]}}, "micro:data=digits", "does not go by the recipe's epochs"),
    ],
)
def test_mistakes_are_told_at_once(recipe: dict[str, Any], objective: str, message: str, code: str) -> None:
    with pytest.raises((SearchError, bf.SpecError), match=message):
        bf.search(NET, objective=objective.replace("CODE", code), recipe={"extends": "micro", **recipe}, trials=1)


def test_one_training_takes_no_holes(tmp_path: Path) -> None:
    (tmp_path / "holes.yaml").write_text(json.dumps(RECIPE))
    with pytest.raises(bf.SpecError, match="there is a hole in this recipe"):
        load_recipe(tmp_path / "holes.yaml")


def test_another_recipe_is_another_study(code: str, tmp_path: Path) -> None:
    bf.search(NET, objective=f"{code}:score", recipe=RECIPE, trials=1, out=tmp_path / "run")
    with pytest.raises(SearchError, match="recipe"):
        bf.search(NET, objective=f"{code}:score", recipe={**RECIPE, "lr": 1e-3}, trials=2, out=tmp_path / "run")


def test_a_screen_sees_the_recipe_too(code: str) -> None:
    """Three networks: what there is to learn is the recipe."""
    settings: dict[str, Any] = {"objective": f"{code}:score", "recipe": RECIPE, "sampler": "random", "trials": 20}
    plain, screened = (bf.search(NET, screen=screen, **settings) for screen in (None, 6))
    assert screened.evaluated == 20
    first, later = ([t.score or 0.0 for t in r.trials if t.state == "scored"][10:] for r in (plain, screened))
    assert np.mean(later) > 1.5 * np.mean(first)
