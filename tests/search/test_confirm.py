"""The best of a search, trained again: real trainings of tiny networks, stopped and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from stripes import stripes

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import SearchError
from blockforge.search.confirm import session as confirming
from blockforge.search.confirm.entrants import entrants
from blockforge.search.confirm.race import FINAL, RACE
from blockforge.search.result import SearchResult
from blockforge.search.workers import run
from blockforge.spec import to_yaml
from blockforge.train import checkpoint

SPACE: dict[str, Any] = {
    "blockforge": 1,
    "name": "small",
    "input": {"channels": 1, "size": 8},
    "num_classes": 10,
    "defaults": {"norm": "layer_norm"},
    "blocks": {"dw": [{"op": "dwconv", "kernel_size": 3}, {"op": "mlp", "mlp_ratio": 1}]},
    "stem": {"op": "patch_embed", "patch": 2},
    "stages": [{"dim": {"$int": [4, 32]}, "depth": 1, "layers": "dw"}],
    "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
}
START = {**SPACE, "name": "seven", "stages": [{"dim": 7, "depth": 1, "layers": "dw"}]}


@pytest.fixture
def data(tmp_path: Path) -> str:
    return stripes(tmp_path, 90, side=8, apart=2, width=3)


def width(arch: bf.Architecture) -> float:
    return float(arch.plan.stages[0].dim or 0)


def search(data: str | None, folder: Path | None, **more: Any) -> SearchResult:
    settings = {"objective": width, "trials": 3, "confirm": 2, "confirm_seeds": 3, "epochs": 1, "sampler": "random"}
    return bf.search(SPACE, data=data, out=folder, start=[START], **{**settings, **more})


def test_the_best_are_trained_again_and_keep_their_weights(data: str, tmp_path: Path) -> None:
    result = search(data, tmp_path / "run")
    known = result.confirmed
    assert known is not None
    assert known.winner is not None
    assert (known.left, known.seeds, known.tested) == (0, 3, True)
    finalists = {e.hash for e in known.entered.finalists}
    assert finalists == {t.hash for t in result.ranked[:2]}
    assert {seed for network, seed in known.trainings if network in finalists} >= {RACE, RACE + 1, RACE + 2}
    assert [b.entrant.label for b in known.baselines][:1] == ["start seven"]
    assert all(b.lead is not None and b.lead.values == 3 for b in known.baselines)
    best = next((tmp_path / "run" / "best").glob("rank1_*.safetensors"))
    model = bf.load_model(best)
    assert model.num_classes == 3
    assert bf.load_model(best.with_suffix(".yaml")).arch.hash == model.arch.hash
    assert not list((tmp_path / "run" / "confirm").rglob("checkpoint.safetensors"))
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.index("Confirmed") < page.index("Candidates by")
    again = bf.search.open_result(tmp_path / "run").confirmed  # type: ignore[attr-defined]
    assert again is not None
    assert again.trainings == known.trainings


def test_what_was_trained_is_not_trained_again(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle of the third training; the next run makes the others."""
    made: list[tuple[str, int]] = []

    def figures(self: confirming.ConfirmSession, network: str, seed: int, folder: Path) -> dict[str, float]:
        if len(made) == 2 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            os.kill(os.getpid(), signal.SIGINT)
        made.append((network, seed))
        return {"top1": 90.0 + seed % 7, "images": 100.0, **({"test": 89.0 + seed % 5} if seed >= FINAL else {})}

    monkeypatch.setattr(confirming.ConfirmSession, "_figures", figures)
    stopped = search(data, tmp_path / "run")
    assert stopped.signal == signal.SIGINT
    assert stopped.confirmed is not None
    assert stopped.confirmed.winner is None
    assert len(made) == 2
    whole = search(data, tmp_path / "run")
    assert whole.confirmed is not None
    assert whole.confirmed.left == 0
    assert len(made) == len(set(made)) == len(whole.confirmed.trainings)
    assert search(data, tmp_path / "run").confirmed == whole.confirmed
    assert len(made) == len(whole.confirmed.trainings)


def test_a_training_that_fails_is_told(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(self: confirming.ConfirmSession, network: str, seed: int, folder: Path) -> dict[str, float]:
        raise MemoryError("no room")

    monkeypatch.setattr(confirming.ConfirmSession, "_figures", figures)
    known = search(data, None).confirmed
    assert known is not None
    assert known.winner is None
    assert all(reason == f"seed {RACE} failed: MemoryError: no room" for reason in known.race.dropped.values())


def test_trainings_are_a_study_of_optunas_beside_the_search(data: str, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'a.db'}"
    search(data, None, storage=storage, study="a", confirm=1)
    beside = optuna.load_study(storage=storage, study_name="a-confirm")
    assert {t.state for t in beside.trials} == {optuna.trial.TrialState.COMPLETE}
    assert all(t.user_attrs["seed"] >= RACE and t.values for t in beside.trials)


def test_none_of_it_where_it_is_not_wanted(data: str) -> None:
    assert search(data, None, confirm="none").confirmed is None
    assert search(None, None).confirmed is None


def test_workers_confirm(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(run, "entrants", lambda *given: looks.append(1) or entrants(*given))
    (tmp_path / "space.yaml").write_text(to_yaml(bf.load(SPACE)))
    arguments = ["search", str(tmp_path / "space.yaml"), "--data", data, "--objective", "params", "--trials", "2"]
    more = ["--confirm", "1", "--confirm-seeds", "3", "--epochs", "1", "--workers", "2", "--out", str(tmp_path / "run")]
    assert main([*arguments, *more, "--control"]) == 0
    shown = capsys.readouterr()
    out = " ".join(shown.out.split())
    assert "Confirmed: trained again from scratch by 1 epochs of the recipe micro on npz:" in out
    assert out.index("Confirmed") < out.index("Candidates by")
    assert "The test images were looked at once" in out
    assert "trainings at most" in shown.err
    assert re.search(r"control: [23]/[23] evaluated", shown.err)
    known = bf.search.open_result(tmp_path / "run").confirmed  # type: ignore[attr-defined]
    (chance,) = (e.label for e in known.entered.baselines if e.role == "random")
    assert re.fullmatch("the best of [23] random candidates at equal cost", chance)  # two workers may make one more
    assert 0 < len(looks) <= len(known.trainings) + 1, "who waits looks again only where a training has ended"


def test_the_control_is_as_many_random_candidates_evaluated_alike(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(self: confirming.ConfirmSession, network: str, seed: int, folder: Path) -> dict[str, float]:
        return {"top1": 90.0 + seed % 7, "images": 100.0, **({"test": 89.0} if seed >= FINAL else {})}

    monkeypatch.setattr(confirming.ConfirmSession, "_figures", figures)
    storage = f"sqlite:///{tmp_path / 'a.db'}"
    settings: dict[str, Any] = {"trials": 12, "sampler": "tpe", "rungs": ["capacity"], "eta": 2}
    result = search(data, None, storage=storage, study="a", control=True, progress=True, **settings)
    assert "control: 12/12 evaluated" in capsys.readouterr().err
    beside = optuna.load_study(storage=storage, study_name="a-control").trials
    scored = [t for t in beside if t.user_attrs["outcome"]["state"] == "scored"]
    assert sum(t.user_attrs.get("rung", 0) == 0 for t in scored) == result.evaluated == 12
    assert sum(t.user_attrs.get("rung", 0) == 1 for t in scored) == 6
    assert all(t.user_attrs["random"] for t in scored if "rung" not in t.user_attrs)
    assert not any("start" in t.user_attrs for t in beside)
    assert result.confirmed is not None
    (control,) = (e for e in result.confirmed.entered.baselines if e.role == "random")
    assert control.label == "the best of 12 random candidates at equal cost"
    best = max(scored, key=lambda t: (t.user_attrs.get("rung", 0), t.value or 0.0))
    assert control.trial.values == tuple(best.values)
    again = search(data, None, storage=storage, study="a", **settings)
    assert again.confirmed == result.confirmed
    assert len(optuna.load_study(storage=storage, study_name="a-control").trials) == len(beside)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confirm_seeds": 2}, r"confirm\.seeds"),
        ({"confirm": 0}, r"confirm\.top"),
        ({"data": None, "control": True}, "a control is confirmed by training on data"),
        ({"fidelity": "nothing.json", "objective": None}, "cannot read nothing.json"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(data: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((SearchError, bf.SpecError), match=message):
        search(wrong.pop("data", data), None, **wrong)


def test_the_cheapest_that_is_as_good_as_a_spec_is_one_command(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is over the budget, and is compared all the same; its figures come from the same seeds."""

    def figures(self: confirming.ConfirmSession, network: str, seed: int, folder: Path) -> dict[str, float]:
        return {"top1": 90.0 + seed % 7, "images": 10_000.0, **({"test": 89.0 + seed % 5} if seed >= FINAL else {})}

    monkeypatch.setattr(confirming.ConfirmSession, "_figures", figures)
    (tmp_path / "seven.yaml").write_text(
        to_yaml(bf.load(START | {"stages": [{"dim": 24, "depth": 1, "layers": "dw"}]}))
    )
    arguments = ["search", "--around", str(tmp_path / "seven.yaml"), "--data", data, "--objective", "capacity"]
    more = ["--cheaper", "macs", "--margin", "0.5", "--trials", "4", "--confirm", "2", "--confirm-seeds", "3"]
    assert main([*arguments, *more, "--out", str(tmp_path / "run"), "--sampler", "random"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Not worse by more than 0.5 points than start seven, at \d\d% of its MACs: \+0.00 points", out)
    result = bf.search.open_result(tmp_path / "run")  # type: ignore[attr-defined]
    known = result.confirmed
    start = bf.compile(tmp_path / "seven.yaml")
    assert result.budget.macs == int(0.75 * start.macs)
    assert known.entered.aim.start == start.hash
    assert [e.role for e in known.entered.baselines] == ["start", "random"]
    assert known.winner.entrant.trial.macs <= 0.75 * start.macs
    assert {seed for network, seed in known.trainings if network == start.hash} == {
        first + i for first in (RACE, FINAL) for i in range(3)
    }


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"data": None}, "something cheaper is as good by training on data"),
        ({"start": []}, "no network to have less macs than"),
        ({"fit": 0.9, "budget": "1MMACs"}, "--fit would bring the start itself to the budget"),
        ({"cheaper": "capacity"}, "capacity is to be large, and no cost"),
        ({"weights": [1.0, 1.0]}, "weights add what --cheaper keeps apart"),
        ({"cheaper": "mcas"}, "did you mean 'macs'"),
        ({"margin": 0.0}, "more than 0.0, not 0.0"),
    ],
)
def test_what_cannot_be_aimed_at_is_told_in_a_line(data: str, tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    settings = {"cheaper": "macs", "start": [START], "data": data, "objective": width, "trials": 2, **wrong}
    with pytest.raises(bf.BlockforgeError, match=told):
        bf.search(SPACE, out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


KILLED = """
import json, os, signal, sys
import blockforge as bf
from blockforge.train import checkpoint

save, saves = checkpoint.save, []

def saved(*arguments):
    save(*arguments)
    saves.append(1)
    if len(saves) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save = saved
bf.search(**json.load(open(sys.argv[1])))
"""


def test_kill_9_inside_a_training_loses_nothing_of_it(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the checkpoint after the first of two epochs of the second training; what comes out is as without the kill."""
    settings = {
        "space": SPACE, "data": data, "objective": "capacity", "trials": 1, "confirm": 1, "confirm_seeds": 3,
        "recipe": {"extends": "micro", "epochs": 2, "save_seconds": 0}, "sampler": "random",
        "out": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "killed.py").write_text(KILLED)
    process = subprocess.run([sys.executable, tmp_path / "killed.py", tmp_path / "settings.json"], check=False)
    assert process.returncode == -signal.SIGKILL
    begun: list[int] = []
    load = checkpoint.load

    def loaded(*arguments: Any) -> Any:
        position = load(*arguments)
        begun.append(position.step if position is not None else 0)
        return position

    monkeypatch.setattr(checkpoint, "load", loaded)
    again = bf.search(**settings)  # type: ignore[operator]
    whole = bf.search(**{**settings, "out": str(tmp_path / "whole")})  # type: ignore[operator]
    assert sorted(begun) == [0] * 4 + [1]  # of what is left of three trainings one goes on after its first step

    def values(result: SearchResult) -> dict[Any, Any]:
        assert result.confirmed is not None
        return {key: (t.top1, t.test) for key, t in result.confirmed.trainings.items()}

    assert values(again) == values(whole)
