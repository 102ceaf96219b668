"""Optuna through its front door: its samplers and pruners in our search, our samplers in its studies."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import SearchError
from blockforge.search import SearchResult, open_result, search
from blockforge.search.optuna_private import reseed
from blockforge.search.samplers.registry import SAMPLERS, make_sampler
from blockforge.spec import Spec

SEARCH = Path(__file__).parents[2] / "search"
TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


def size(arch: bf.Architecture) -> float:
    return float(arch.params)


def rosy(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", ["none", "deep"])
    depth = trial.suggest_int("depth", 1, 3) if kind == "deep" else 0
    return depth + trial.suggest_int("width", 8, 32, step=8) / 8


# --- ours in plain studies


@pytest.mark.parametrize("name", SAMPLERS)
def test_our_samplers_serve_plain_studies(name: str) -> None:
    def run() -> optuna.Study:
        study = optuna.create_study(direction="maximize", sampler=make_sampler(name, 1))
        study.optimize(rosy, n_trials=30)
        return study

    studies = [run(), run()]
    assert [t.params for t in studies[0].trials] == [t.params for t in studies[1].trials]
    assert studies[0].best_value >= 6
    if name == "brute":  # 3 * 4 with a depth, 4 without: each once, and then it ends by itself
        assert len(studies[0].trials) == len({tuple(t.params.items()) for t in studies[0].trials}) == 16


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_our_samplers_serve_several_values_threads_and_failures(name: str) -> None:
    def both(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 1)
        if trial.number % 7 == 3:
            raise ValueError
        return x, (1 - x) ** 2

    study = optuna.create_study(directions=["minimize", "minimize"], sampler=make_sampler(name, 0))
    study.optimize(both, n_trials=40, n_jobs=2, catch=(ValueError,))
    values = [t.params["x"] for t in study.trials]
    assert len(set(values)) == 40, "nobody proposes the same twice"


# --- Optuna's in our search


def quiet(make: Callable[[], BaseSampler]) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are experimental
        return make()


GRID = {
    "stages.0.dim": [8, 16], "stages.0.depth": [1], "stages.1.dim": [16, 24], "stages.1.depth": [1, 2],
    "stages.1.layers": ["dw"], "blocks.dw.0.kernel_size": [3], "blocks.dw.1.mlp_ratio": [1],
    "stages.1.connect": ["none"],
}  # fmt: skip
THEIRS: dict[str, Callable[[], BaseSampler]] = {
    "tpe": lambda: optuna.samplers.TPESampler(n_startup_trials=4),
    "random": lambda: optuna.samplers.RandomSampler(),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=4),
    "qmc": lambda: optuna.samplers.QMCSampler(seed=0),
    "gp": lambda: optuna.samplers.GPSampler(n_startup_trials=6),
    "brute": lambda: optuna.samplers.BruteForceSampler(),
    "grid": lambda: optuna.samplers.GridSampler(GRID),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", THEIRS)
def test_their_samplers_serve_our_search(tiny: Spec, name: str, tmp_path: Path) -> None:
    trials = {"gp": 7, "grid": 8}.get(name, 12)

    def run(trials: int, out: Path | None = None) -> SearchResult:
        sampler = quiet(THEIRS[name])
        return search(tiny, trials=trials, objective=size, budget="900KFLOPs", sampler=sampler, seed=3, out=out)

    whole = run(trials)
    assert whole.evaluated == trials
    assert all(bf.compile(whole.spec(t)).hash == t.hash for t in whole.ranked[:2])
    for count in (trials - 4, trials):  # stopped in between, it is the same study
        parts = run(count, tmp_path)
    assert [t.holes for t in parts.trials] == [t.holes for t in whole.trials]


def test_cma_es_serves_our_search(tiny: Spec) -> None:
    pytest.importorskip("cmaes")
    sampler = quiet(lambda: optuna.samplers.CmaEsSampler(n_startup_trials=4))
    assert search(tiny, trials=10, objective=size, sampler=sampler).evaluated == 10


def test_a_sampler_that_says_it_is_over_ends_the_search(few: Spec) -> None:
    result = search(few, trials=50, objective=size, sampler=quiet(optuna.samplers.BruteForceSampler))
    assert (result.evaluated, result.stopped) == (6, "every candidate of the space was proposed")


def test_a_sampler_that_fails_is_told_by_name(tiny: Spec) -> None:
    sampler = quiet(lambda: optuna.samplers.GridSampler({"other": [1]}))
    with pytest.raises(
        SearchError, match=r"the sampler optuna.samplers:GridSampler \(an object\) failed: ValueError: "
    ):
        search(tiny, trials=2, objective=size, sampler=sampler)


class NeedsALibrary(optuna.samplers.RandomSampler):
    """As CMA-ES does, it imports what it needs when it proposes."""

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        import no_such_library.part  # noqa: F401


def test_a_sampler_whose_library_is_missing_says_what_to_install(tiny: Spec) -> None:
    with pytest.raises(SearchError, match=r"No module named.*\n  hint: pip install no_such_library, which"):
        search(tiny, trials=2, objective=size, sampler=NeedsALibrary())


class Odd(optuna.samplers.RandomSampler):
    """Gives what it is told to, made of what a right sampler gives."""

    def __init__(self, change: Callable[..., object]) -> None:
        super().__init__(seed=0)
        self.change = change

    def sample_independent(self, study, trial, param_name, param_distribution):  # type: ignore[no-untyped-def]
        return self.change(super().sample_independent(study, trial, param_name, param_distribution))


def test_numbers_of_numpy_are_numbers(tiny: Spec) -> None:
    odd = Odd(lambda value: np.int64(value) if isinstance(value, int) else np.str_(value))
    plain, theirs = (search(tiny, trials=3, objective=size, sampler=s, seed=1) for s in (Odd(lambda v: v), odd))
    assert [t.params for t in theirs.trials] == [t.params for t in plain.trials]


@pytest.mark.parametrize("wrong", [None, 10**9, float("nan"), object(), "none such"])
def test_a_value_that_is_none_of_a_hole_is_told(tiny: Spec, wrong: object) -> None:
    with pytest.raises(SearchError, match=r"the sampler \S*Odd \(an object\) failed: ValueError: .* is no value of '"):
        search(tiny, trials=1, objective=size, sampler=Odd(lambda _: wrong))


def test_a_sampler_that_exits_does_not_end_the_process(tiny: Spec) -> None:
    with pytest.raises(SearchError, match="failed: SystemExit: 0"):
        search(tiny, trials=1, objective=size, sampler=Odd(lambda _: sys.exit(0)))


# --- by name, and as objects


def test_a_sampler_by_the_name_of_its_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "own_samplers.py").write_text(
        "import optuna\nSEEN = []\n"
        "def make(seed, startup=5):\n    SEEN.append((seed, startup))\n"
        "    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)\n"
        "def wrong():\n    return 3\n"
        "def leaves():\n    raise SystemExit(0)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["search", str(TINY), "--objective", "params", "--trials", "3", "--out", "run"]
    assert main([*command, "--sampler", "own_samplers.py:make:startup=2", "--seed", "9", "--workers", "2"]) == 0
    assert open_result("run").plan.sampler == "own_samplers.py:make:startup=2"
    assert main([*command, "--sampler", "own_samplers.py:wrong", "--out", "other"]) == 1
    assert "own_samplers.py:wrong gives int, and no BaseSampler of Optuna's" in capsys.readouterr().err
    assert main([*command, "--sampler", "own_samplers.py:leaves", "--out", "fourth"]) == 1
    assert "own_samplers.py:leaves cannot be made: SystemExit: 0" in capsys.readouterr().err
    assert not (tmp_path / "other").exists(), "the same --out serves once the name is right"
    assert main(["search", str(TINY), "--sampler", "optuna.samplers:RandomSampler", "--objective", "params",
                 "--trials", "2", "--out", "third"]) == 0  # fmt: skip
    assert main([*command, "--sampler", "random"]) == 1
    told = capsys.readouterr().err
    assert "sampler: the study has own_samplers.py:make:startup=2, this run random" in told


def test_an_object_serves_its_process_alone(tiny: Spec, tmp_path: Path) -> None:
    sampler = optuna.samplers.RandomSampler()
    first = search(tiny, trials=3, objective="params", sampler=sampler, out=tmp_path)
    assert first.plan.sampler == "optuna.samplers:RandomSampler (an object)"
    with pytest.raises(SearchError, match=r"was handed over as an object, which is gone\n  hint: hand it over again"):
        search(trials=5, out=tmp_path)
    assert search(trials=5, out=tmp_path, sampler=optuna.samplers.RandomSampler()).evaluated == 5
    assert open_result(tmp_path).evaluated == 5, "reading needs no sampler"
    with pytest.raises(SearchError, match=r"workers cannot make the sampler optuna.samplers:RandomSampler"):
        search(tiny, trials=5, objective="params", sampler=sampler, workers=2, out=tmp_path / "two")
    with pytest.raises(SearchError, match=r"a sampler is a name or a BaseSampler of Optuna's, not builtins:NoneType"):
        search(tiny, sampler=None.__repr__)  # type: ignore[arg-type]


# --- pruners


def slow(arch: bf.Architecture, report: Callable[[float, int], None] | None = None) -> float:
    for step in range(4):
        if report is not None:
            report(arch.params * (step + 1) / 4, step)
    return float(arch.params)


def tenth(arch: bf.Architecture, report: Callable[[float, int], None] | None = None) -> float:
    if report is not None:
        report(arch.params / 10, 0)
    return arch.params / 10


def test_a_pruner_cuts_evaluations_short(tiny: Spec, tmp_path: Path) -> None:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    result = search(tiny, trials=20, objective=slow, sampler="tpe", pruner=pruner, out=tmp_path)
    pruned = [t for t in result.trials if t.state == "pruned"]
    assert result.evaluated == 20
    assert 3 < len(pruned) < 17
    assert all(t.values is None and t.reason.startswith("pruned at step 0: ") for t in pruned)
    assert max(t.params for t in pruned) < max(t.score for t in result.ranked)
    study = optuna.load_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
        ),
    )
    assert sum(t.state == TrialState.PRUNED and bool(t.intermediate_values) for t in study.trials) == len(pruned)
    assert "pruned" in (tmp_path / "trials.csv").read_text()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "optuna.samplers:TPESampler"])
@pytest.mark.parametrize(
    "pruner",
    ["optuna.pruners:MedianPruner:n_startup_trials=4", "optuna.pruners:SuccessiveHalvingPruner"],
)
def test_a_pruner_goes_by_the_first_of_several_objectives(tiny: Spec, sampler: str, pruner: str) -> None:
    result = search(tiny, trials=24, objectives=[slow, "macs"], sampler=sampler, pruner=pruner)
    pruned = [t for t in result.trials if t.state == "pruned"]
    assert result.evaluated == 24
    assert 3 < len(pruned) < 22
    assert all(t.values is None and t.reason.startswith("pruned at step ") for t in pruned)
    assert max(t.params for t in pruned) < max(t.params for t in result.ranked)


def test_a_pruner_compares_values_of_one_rung_alone(tiny: Spec) -> None:
    """A rung tells a tenth of what the objective does, so its values would all be below the median of those."""
    told: dict[int, list[int]] = {}

    class Asked(optuna.pruners.MedianPruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            seen = study.get_trials(deepcopy=False)
            told[trial.number] = [t.user_attrs.get("rung", 0) for t in seen]
            assert {t.user_attrs.get("rung", 0) for t in seen} == {trial.user_attrs.get("rung", 0)}
            return super().prune(study, trial)

    result = search(tiny, trials=16, objective=slow, rungs=[tenth], eta=2, pruner=Asked(n_startup_trials=3))
    pruned = [t.rung for t in result.trials if t.state == "pruned"]
    assert pruned.count(0) > 2
    assert {0, 1} == {rungs[0] for rungs in told.values()}
    up = {t.promoted_from for t in result.trials if t.rung == 1}
    assert not up & {t.number for t in result.trials if t.state == "pruned"}


class Breaks(optuna.pruners.BasePruner):
    broken = True

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        if self.broken:
            raise RuntimeError("no idea")
        return False


def test_a_pruner_that_fails_ends_the_search_and_blames_no_candidate(
    tiny: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SearchError, match=r"the pruner .*Breaks.* failed: RuntimeError: no idea\n  hint: another --pruner"
    ):
        search(tiny, trials=4, objective=slow, pruner=Breaks(), out=tmp_path)
    monkeypatch.setattr(Breaks, "broken", False)
    result = search(tiny, trials=4, objective=slow, pruner=Breaks(), out=tmp_path)
    assert result.counts["scored"] == 4
    assert not result.counts["failed"]


def test_what_a_pruner_cannot_do_is_told(tiny: Spec) -> None:
    name = "optuna.pruners:MedianPruner"
    for settings, message in [
        ({"objective": "params"}, r"nothing to go by: params tells no values on its way\n  hint: def score"),
        ({"objectives": ["params", "macs"]}, r"nothing to go by: params, macs tells no values"),
        ({"objective": slow, "pruner": "median"}, r"no pruner named 'median'\n  hint: optuna.pruners:MedianPruner"),
    ]:
        with pytest.raises(SearchError, match=message):
            search(tiny, trials=2, **{"pruner": name, **settings})


# --- the fence


def test_private_names_of_optuna_stand_in_one_file() -> None:
    wrong = []
    for file in SEARCH.rglob("*.py"):
        if file.name == "optuna_private.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and "optuna" in (node.module or "").split(".")[0]:
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                wrong += [f"{file.name}: {name}" for name in names if name.startswith("_")]
            private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
            if private and isinstance(node.value, ast.Name) and node.value.id in {"study", "trial", "distribution"}:
                wrong.append(f"{file.name}: {node.value.id}.{node.attr}")
    assert not wrong


class FullDisk(optuna.samplers.RandomSampler):
    """Keeps something of its own, where there is no more place for it."""

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        raise OSError(28, "No space left on device")


def test_a_sampler_without_a_file_is_not_taken_for_the_study(tiny: Spec, tmp_path: Path) -> None:
    for out in (None, tmp_path / "study"):
        with pytest.raises(SearchError, match=r"the sampler .*FullDisk \(an object\) failed: OSError: .*No space left"):
            search(tiny, trials=2, objective=size, sampler=FullDisk(), out=out)


SEEDED: dict[str, Callable[[int], BaseSampler]] = {
    "TPESampler": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
    "RandomSampler": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "NSGAIISampler": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=4),
    "NSGAIIISampler": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=4),
    "QMCSampler": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
    "GPSampler": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=4),
    "CmaEsSampler": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=4),
    "BruteForceSampler": lambda seed: optuna.samplers.BruteForceSampler(seed=seed),
    "PartialFixedSampler": lambda seed: optuna.samplers.PartialFixedSampler(
        {"width": 16}, optuna.samplers.QMCSampler(seed=seed, scramble=True)
    ),
}
NOT_SEEDED = {"BaseSampler", "BaseGASampler", "nsgaii", "GridSampler"}
"""What is no sampler, and one whose order its constructor has drawn, by its own seed or 0."""


def flat(trial: optuna.Trial) -> float:
    return trial.suggest_int("width", 8, 256) + trial.suggest_int("depth", 1, 40) / 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in optuna.samplers.__all__ if n not in NOT_SEEDED])
def test_every_sampler_of_theirs_follows_the_seed_of_the_search(name: str) -> None:
    """Whatever seed it was made with: workers make their samplers each for themselves."""
    if name == "CmaEsSampler":
        pytest.importorskip("cmaes")

    def proposed(made_with: int, seed: int) -> list[dict[str, object]]:
        study, sampler = optuna.create_study(direction="maximize"), SEEDED[name](made_with)
        study.sampler = sampler
        for number in range(8):
            reseed(sampler, [seed, number])
            study.optimize(flat, n_trials=1)
        return [trial.params for trial in study.trials]

    assert proposed(1, 5) == proposed(2, 5)
    assert proposed(1, 5) != proposed(1, 6)
