"""Samplers: TPE is Optuna's, the others keep to the space, learn, and repeat."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler

import blockforge as bf
from blockforge.search import SearchError, search
from blockforge.search.samplers.algorithms.tpe import BoundedTPE
from blockforge.search.samplers.mutation import mutated
from blockforge.search.samplers.registry import SAMPLERS, check_shareable, make_sampler
from blockforge.search.space.parameters import count, index_of, nth
from blockforge.search.study.pareto import crowding, order, ranks
from blockforge.search.study.storage import quiet_optuna
from blockforge.search.workers.draft import Draft
from blockforge.spec import Spec, holes


def size(arch: bf.Architecture) -> float:
    return float(arch.params)


def shape(arch: bf.Architecture) -> float:
    """Large for networks that random search seldom draws."""
    last = arch.plan.stages[-1]
    return float(len(last.layers) * 10 + last.dim - 5 * arch.plan.stages[0].dim)


@pytest.mark.parametrize("several", [False, True])
def test_tpe_proposes_what_optunas_does(tiny: Spec, several: bool) -> None:
    """While the sample holds all trials, conditional holes and refused candidates included."""
    own, directions = holes(tiny), ["maximize", "minimize"][: 1 + several]
    study = optuna.create_study(directions=directions)
    rng = np.random.default_rng(0)
    for i in range(40):
        trial = study.ask()
        for hole in own.values():
            if hole.name != "stages.1.connect.stride" or i % 3:
                Draft(lambda name, dist, t=trial: t._suggest(name, dist)).ask(hole)
        trial.set_constraint("macs", float(rng.normal()))
        values = rng.normal(size=2).tolist()[: 1 + several]
        if i % 4:
            trial.set_user_attr("outcome", {"state": "scored", "values": values})
            study.tell(trial, values)
        else:
            trial.set_user_attr("outcome", {"state": "refused"})
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed = int(np.random.SeedSequence([3, 40]).generate_state(1)[0])
        theirs = TPESampler(multivariate=True, group=True, constant_liar=False, seed=seed)
    ours = BoundedTPE(seed=3)
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    trial.number = 40
    expected = theirs.sample_relative(study, trial, theirs.infer_relative_search_space(study, trial))
    ours.before_trial(study, trial)
    draft = Draft(lambda name, distribution: ours.sample_independent(study, trial, name, distribution))
    for hole in own.values():
        draft.ask(hole)
    assert len(expected) == len(own)
    assert draft.params == expected


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_in_the_space_and_repeats(tiny: Spec, sampler: str) -> None:
    found = [search(tiny, trials=24, objective=size, sampler=sampler, budget="900KFLOPs") for _ in range(2)]
    assert [t.holes for t in found[0].trials] == [t.holes for t in found[1].trials]
    own = holes(tiny)
    assert found[0].evaluated == 24
    for trial in found[0].trials:
        assert all(value in own[name] for name, value in trial.holes.items())
        assert bf.compile(found[0].spec(trial)).hash == trial.hash


@pytest.mark.parametrize("sampler", ["evolution", "nsga2", "tpe"])
def test_samplers_that_learn_beat_chance(tiny: Spec, sampler: str) -> None:
    def mean(name: str) -> float:
        runs = [search(tiny, trials=60, objective=shape, sampler=name, seed=seed) for seed in range(2)]
        return sum(t.score for run in runs for t in run.ranked) / 120

    assert mean(sampler) > mean("random") + 3


def test_brute_force_enumerates_a_space_with_conditional_holes() -> None:
    space = bf.load(
        {
            "blockforge": 1, "name": "small", "input": {"size": 32}, "stem": {"op": "conv_stem"},
            "blocks": {"dw": [{"op": "dwconv"}]}, "num_classes": 2, "head": {"op": "classifier"},
            "stages": [{
                "dim": {"$choice": [8, 16]}, "depth": {"$int": [2, 3]}, "layers": "dw",
                "connect": {"$choice": ["none", {"rule": "sparx", "stride": {"$int": [1, 2]}, "aggregate": "concat"}]},
            }],
        }
    )  # fmt: skip
    result = search(space, trials=100, objective=size, sampler="brute")
    assert result.stopped == "every candidate of the space was proposed"
    assert len(result.trials) == len({tuple(t.holes.items()) for t in result.trials}) == 2 * 2 * (1 + 2)


def test_brute_force_needs_an_end(few: Spec) -> None:
    space = bf.load(few, {"blocks.dw.1.mlp_ratio": {"$float": [1.0, 2.0]}})
    with pytest.raises(SearchError, match=r"'blocks.dw.1.mlp_ratio' has no end of values"):
        search(space, trials=1, objective=size, sampler="brute")


def test_nsga2_finds_a_front_and_avoids_the_refused(tiny: Spec) -> None:
    def run(sampler: str) -> Any:
        return search(
            tiny, trials=50, objectives=[shape, "params"], budget="450KFLOPs", sampler=sampler, seed=1
        )  # fmt: skip

    found, chance = run("nsga2"), run("random")
    assert found.counts["refused"] < chance.counts["refused"]
    front = [t.values for t in found.pareto]
    assert len(front) > 1
    assert not any(a[0] >= b[0] and a[1] <= b[1] for a in front for b in front if a is not b)


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(2, 10, step=4),
        CategoricalDistribution(["a", 1, 2.5, None]),
        FloatDistribution(1e-3, 1.0, log=True),
    ],
)
def test_mutation_gives_another_value_of_the_range(distribution: optuna.distributions.BaseDistribution) -> None:
    rng = np.random.default_rng(0)
    size = count(distribution)
    values = [nth(distribution, i) for i in range(size)] if size else [0.5]
    for value in values:
        for _ in range(10):
            found = mutated(value, distribution, rng)
            assert distribution._contains(distribution.to_internal_repr(found))
            if size:
                assert index_of(distribution, found) != index_of(distribution, value)


@pytest.mark.parametrize("sampler", ["evolution", "nsga2", "brute"])
def test_a_wide_range_takes_no_longer(sampler: str) -> None:
    with quiet_optuna():
        study = optuna.create_study(sampler=make_sampler(sampler, seed=0))
        study.optimize(lambda trial: float(abs(trial.suggest_int("n", -(2**60), 2**60))), n_trials=60)
    assert len({trial.params["n"] for trial in study.trials}) > 30


def test_ranks_and_crowding_of_known_points() -> None:
    points = np.array([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0], [3.0, 3.0], [5.0, 5.0], [2.0, 2.0]])
    assert ranks(points).tolist() == [0, 0, 0, 1, 2, 0]
    assert crowding(points[:3]).tolist() == [np.inf, 2.0, np.inf]
    assert order(np.array([[3.0], [1.0], [2.0]])) == [1, 2, 0]
    assert order(np.empty((0, 2))) == []


def test_ranks_agree_with_the_definition() -> None:
    rng = np.random.default_rng(1)
    points = rng.integers(0, 6, size=(40, 3)).astype(float)
    found = ranks(points)
    for i, a in enumerate(points):
        above = [found[j] for j, b in enumerate(points) if (b <= a).all() and (b < a).any()]
        assert found[i] == max(above, default=-1) + 1


FILE = """
import optuna

made = optuna.samplers.RandomSampler(seed=0)


class Picky(optuna.samplers.RandomSampler):
    def __init__(self, share: float = 0.5) -> None:
        super().__init__(seed=0)
        self.share = share

    def before_trial(self, study, trial):
        assert 0 < self.share < 1, "share is from 0 to 1"
"""


def test_options_that_fail_at_the_first_proposal_leave_no_study(tiny: Spec, tmp_path: Path) -> None:
    (tmp_path / "picky_sampler.py").write_text(FILE)
    named = f"{tmp_path / 'picky_sampler.py'}:Picky"
    with pytest.raises(SearchError, match="failed: AssertionError: share is from 0 to 1"):
        search(tiny, trials=2, objective=size, sampler=f"{named}:share=7", out=tmp_path / "run")
    assert search(tiny, trials=2, objective=size, sampler=f"{named}:share=0.7", out=tmp_path / "run").evaluated == 2


def test_options_that_nobody_takes_are_told(tmp_path: Path) -> None:
    (tmp_path / "picky_sampler.py").write_text(FILE)
    with pytest.raises(SearchError, match=r":made is an object, and takes no option seed\n  hint: a class or a func"):
        make_sampler(f"{tmp_path / 'picky_sampler.py'}:made:seed=3", 0)
    with pytest.raises(SearchError, match="'tpe' is given the option 'seed' twice"):
        make_sampler("tpe:seed=1,seed=2", 0)
    with pytest.raises(SearchError, match=r"not optuna.*TPESampler\n  hint: one that is made: sampler=TPESampler\("):
        make_sampler(TPESampler, 0)


def test_what_a_script_holds_is_of_no_use_to_workers(tiny: Spec, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"__main__:nosuch is of a notebook or a script, and this process runs anoth"):
        make_sampler("__main__:nosuch", 0)
    with pytest.raises(SearchError, match="workers cannot make the sampler __main__:mine again"):
        check_shareable("__main__:mine", "sampler")
