"""Tables of trainings as one object, and searches replayed on them. Nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

import blockforge as bf
from blockforge.errors import SearchError
from blockforge.search.fidelity.benchmark import Benchmark, benchmark, list_benchmarks
from blockforge.search.fidelity.collect import draw_network
from blockforge.search.fidelity.measured import measure
from blockforge.search.fidelity.table import Network, Setting, Table, Training
from blockforge.search.samplers.algorithms.tpe import BoundedTPE
from blockforge.search.space.load import load_space


def setting() -> Setting:
    space = load_space(Path(__file__).parent.parent / "data" / "search" / "tiny.yaml")
    tree = json.loads(json.dumps(space.tree))
    return Setting(space=tree, budget="100kMACs", fit=0.5, data="d", data_digest="0", recipe="micro")


@pytest.fixture(scope="module")
def trained() -> Benchmark:
    """14 networks of a small space; long trainings double what short ones reach."""
    networks = [
        Network(network=n, hash=f"{n}", answers=answers(n), widths={}, macs=1, params=1, depth=1) for n in range(15)
    ]
    rows = [
        Training(network=line.network, steps=steps, repeat=repeat, seed=0, session=0, seconds=1.0,
                 top1=steps * (worth(line.answers) + repeat))
        for line in networks[:14] for steps in (1, 2) for repeat in range(2 if line.network == 3 else 1)
    ]  # fmt: skip
    return Benchmark("few", Table(setting(), [*networks, *rows, rows[0].model_copy(update={"network": 14})]))


def answers(number: int) -> dict[str, Any]:
    return {"stages.1.depth": 1 + number % 4, "stages.1.dim": 16 + 8 * (number // 4 % 3), "let.heads": 1 + number // 12}


def worth(answers: dict[str, Any]) -> float:
    return 10.0 * answers["stages.1.depth"] + answers["stages.1.dim"] / 8


def test_values_are_those_of_the_table(trained: Benchmark) -> None:
    assert list(trained.networks) == list(range(14))  # 14 has no whole ladder
    assert trained.steps == (1, 2)
    three = worth(trained.networks[3].answers)
    assert (trained.value(3, 1, 0), trained.value(3, 1, 1), trained.value(3, 1)) == (three, three + 1, three + 0.5)
    assert trained.value(3, seed=0) == 2 * three
    assert (trained.seeds(3), trained.seeds(4)) == (2, 1)
    assert trained.value(trained.best) == max(trained.value(n) for n in trained.networks)
    assert repr(trained) == (
        "few: 14 networks of 'tiny' at 50% to 100% of 100kMACs, each trained on d for 1, 2 steps (micro), "
        "1 of them with up to 2 seeds"
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [((99,), "no training of network 99"), ((14,), "no training of network 14"), ((4, 2, 1), "hint: it has 1 seeds"),
     ((4, 3), "no trainings of 3 steps")],
)  # fmt: skip
def test_what_was_not_trained_is_not_made_up(trained: Benchmark, asked: tuple[int, ...], told: str) -> None:
    with pytest.raises(SearchError, match=told):
        trained.value(*asked)


def test_answers_are_found_again_also_where_they_are_written_otherwise() -> None:
    line = draw_network(setting(), 0, set())
    row = Training(network=0, steps=1, repeat=0, seed=0, session=0, seconds=1.0, top1=50.0)
    one = Benchmark("one", Table(setting(), [line, row]))
    assert one.evaluate(line.answers) == 50.0
    assert one.evaluate({**line.answers, "nobody.asks": 3}) == 50.0  # by the network that it makes
    other = draw_network(setting(), 1, {line.hash}).answers
    assert one.find(other) is None
    with pytest.raises(SearchError, match="nearest"):
        one.evaluate(other)


def test_the_nearest_network_is_the_one_with_the_same_answers(trained: Benchmark) -> None:
    for n, line in trained.networks.items():
        assert trained.distance(line.answers, n) == 0
        assert trained.distance(trained.networks[trained.nearest(line.answers)].answers, n) == 0
    assert 0 < trained.distance(trained.networks[0].answers, 1) <= 1
    assert trained.nearest(trained.networks[0].answers, among=[2, 7]) in (2, 7)


@pytest.mark.parametrize("make", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler, BoundedTPE])
def test_a_search_is_replayed_without_training_a_network_twice(trained: Benchmark, make: Any) -> None:
    taken = trained.replay(make(seed=1), trials=99)
    assert sorted(taken) == list(trained.networks)
    assert taken == trained.replay(make(seed=1), trials=99)
    assert len(trained.replay(make(seed=1), trials=5, steps=1)) == 5


def test_a_sampler_is_told_of_the_networks_that_were_trained(trained: Benchmark) -> None:
    seen: dict[int, tuple[dict[str, Any], float]] = {}

    class Watching(optuna.samplers.RandomSampler):
        def sample_independent(self, study: Any, *args: Any) -> Any:
            for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
                seen[trial.user_attrs["network"]] = trial.params, trial.value
            return super().sample_independent(study, *args)

    taken = trained.replay(Watching(seed=0), trials=5, steps=1, seed=0)
    assert list(seen) == taken[:4]  # the last one had ended before anybody asked again
    assert all(seen[n] == (trained.networks[n].answers, trained.value(n, 1, 0)) for n in taken[:4])


def test_it_is_an_objective_of_optuna(trained: Benchmark) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(trained.objective(steps=1, seed=0), n_trials=6)
    assert study.best_value == trained.value(study.best_trial.user_attrs["network"], 1, 0)


def test_packaged_tables_load_and_are_what_this_version_compiles() -> None:
    assert "tiny-fashion" in list_benchmarks()
    for name in list_benchmarks():
        packaged = bf.benchmark(name)
        assert len(packaged) >= 3
        for number in list(packaged.networks)[:: max(1, len(packaged) // 5)]:
            arch, line = packaged.architecture(number), packaged.networks[number]
            assert (arch.hash, arch.macs, arch.params) == (line.hash, line.macs, line.params)
        assert measure(packaged.table).fidelity.networks == len(packaged)


def test_other_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="did you mean 'tiny-fashion'"):
        benchmark("tiny_fashion")
    with pytest.raises(SearchError, match="no trainings in"):
        benchmark(tmp_path / "none.jsonl")
