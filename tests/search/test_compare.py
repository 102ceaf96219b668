"""Networks at one budget, trained alike: what is fitted, what is in the table, and what goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.compiler import Architecture
from blockforge.errors import BudgetError
from blockforge.search.equal_cost import trainings as made_alike
from blockforge.search.equal_cost.compare import CompareError, Row, compare, fitted, summary
from blockforge.search.equal_cost.trainings import Run, read_runs, runs_of, train_all
from blockforge.train import Data, open_data

CONVOLUTIONS = """
blockforge: 1
name: convolutions
input: {channels: 1, size: 16}
num_classes: 10
blocks: {conv: [{op: dwconv, kernel_size: 3}, {op: mlp, mlp_ratio: 2}]}
stem: {op: conv_stem}
stages: [{dim: 16, depth: 1, layers: conv}]
head: {op: classifier}
"""
BUDGET = "200KMACs"


@pytest.fixture(autouse=True)
def _specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text(CONVOLUTIONS)
    (tmp_path / "b.yaml").write_text(CONVOLUTIONS.replace("depth: 1", "depth: 3"))
    monkeypatch.chdir(tmp_path)


def run_of(arch: Architecture, seed: int, top1: float, epochs: int = 1) -> Run:
    costs = arch.macs, arch.params, arch.depth
    return Run(arch.name, arch.hash, seed, "digits", "micro", epochs, *costs, top1, 0.5, 2.0 + seed)


def test_networks_are_fitted_to_the_budget() -> None:
    found = fitted(["a.yaml", "b.yaml"], BUDGET, 0.95, ["input.size=32"])
    assert list(found) == ["a", "b"]
    assert all(0.95 * 200_000 <= arch.macs <= 200_000 for arch in found.values())
    assert [arch.depth for arch in found.values()] == [1, 3]
    assert found["a"].plan.input.size == [32, 32]


def test_all_that_do_not_fit_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"(?s)'convolutions' cannot .*'convolutions' cannot .*hint: another --budget"
    ):
        fitted(["a.yaml", "b.yaml"], "10MACs", 0.95)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.yaml").write_text(CONVOLUTIONS)
    with pytest.raises(CompareError, match="two specs are called 'a'\n  hint: rename one file"):
        fitted(["a.yaml", "other/a.yaml"], BUDGET, 0.95)


def test_rows_are_means_over_the_seeds_that_were_asked_for() -> None:
    networks = fitted(["a.yaml", "b.yaml"], BUDGET, 0.95)
    a, b = networks.values()
    runs = [run_of(a, 0, 90), run_of(b, 0, 93), run_of(a, 1, 92), run_of(b, 1, 97), run_of(a, 2, 0)]
    first, second = compare(networks, runs, seeds=2)
    assert (first.spec, first.top1, first.low, first.high, first.seconds) == ("b", 95, 93, 97, 2.5)
    assert (second.spec, second.top1, second.seeds) == ("a", 91, 2)
    assert (first.sd, second.sd) == pytest.approx((math.sqrt(8), math.sqrt(2)))
    assert first.each == {0: 93, 1: 97}
    text = "b leads a by +4.00 (-8.71 to +16.71) points: not shown to be better"
    assert summary([first, second]).splitlines()[0] == text
    surer = dataclasses.replace(first, each={0: 93, 1: 95.01})
    third = dataclasses.replace(second, spec="c", each={0: 0, 1: 90})
    said = summary([surer, second, third]).splitlines()
    assert said[0] == "b leads a by +3.01 (+2.88 to +3.13) points: better"
    assert re.fullmatch(r"b leads c by \+49.0. \(-.*\) points: not shown to be better", said[1])
    assert "one seed does not say" in summary(compare(networks, runs, seeds=1))
    assert summary([first]) == "There is nothing to compare with."


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    made: list[tuple[str, int]] = []

    def train_one(arch: Architecture, data: Data, recipe: str, epochs: int, seed: int, test: bool) -> Run:
        made.append((arch.name, seed))
        return run_of(arch, seed, 90 + seed + arch.depth, epochs)

    monkeypatch.setattr(made_alike, "train_one", train_one)
    return made


def test_the_command_goes_on_and_keeps_other_settings_apart(
    trainings: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "compare", "a.yaml", "b.yaml", "--budget", BUDGET, "--runs", "r.csv", "--data", "digits"]
    assert main([*command, "--epochs", "1", "--seeds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["spec"], row["top1"], row["seeds"]) for row in rows] == [("b", 93, 1), ("a", 91, 1)]
    assert main([*command, "--epochs", "1", "--seeds", "2"]) == 0
    printed = capsys.readouterr()
    assert len(trainings) == 4
    assert "4/4: convolutions, seed 1: 94.00% in 3.0 s" in printed.err
    assert "93.50 ± 0.71" in printed.out
    assert main([*command, "--epochs", "2", "--seeds", "1"]) == 0
    assert len(trainings) == 6
    assert {run.epochs for run in runs_of(Path("r.csv"), "digits", "micro", 2)} == {2}
    assert main([*command, "--epochs", "1", "--seeds", "1", "--recipe", "nosuch"]) == 1
    assert "nosuch" in capsys.readouterr().err


def test_test_images_are_measured_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """They tell other figures than those to choose by, and the table keeps both."""
    command = ["bench", "compare", "a.yaml", "--budget", BUDGET, "--runs", "r.csv", "--epochs", "1", "--seeds", "1"]
    assert main([*command, "--data", "digits"]) == 0
    assert main([*command, "--data", "digits", "--test"]) == 0
    assert "digits, test images" in capsys.readouterr().out
    one, other = read_runs(Path("r.csv"))
    assert (one.data, other.data) == ("digits", "digits, test images")
    assert (one.hash, one.seed) == (other.hash, other.seed)
    assert one.loss != other.loss
    images = open_data("digits").parts["test"]
    assert (other.top1 * len(images) / 100) == pytest.approx(round(other.top1 * len(images) / 100), abs=1e-2)
    assert main([*command, "--data", "digits", "--test"]) == 0
    assert len(read_runs(Path("r.csv"))) == 2


@pytest.mark.slow  # two processes, each of which imports torch
def test_processes_train_what_one_would(tmp_path: Path) -> None:
    networks = list(fitted(["a.yaml", "b.yaml"], BUDGET, 0.95).values())
    for workers in (1, 2):
        list(train_all(networks, tmp_path / f"{workers}.csv", "digits", "micro", 1, seeds=1, workers=workers))
    one, two = (sorted(read_runs(tmp_path / f"{n}.csv"), key=lambda run: run.hash) for n in (1, 2))
    assert [(run.key, run.top1, run.loss) for run in one] == [(run.key, run.top1, run.loss) for run in two]
    assert isinstance(compare({"a": networks[0]}, one, 1)[0], Row)
