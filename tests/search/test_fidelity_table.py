"""Tables of trainings: what is trained when, what a stop leaves, and what the figures say. Nothing is trained here."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from blockforge.compiler import Architecture
from blockforge.errors import BlockforgeError, DataError, OutputError, RunError, SearchError
from blockforge.extras import MissingExtraError
from blockforge.interrupts import EvaluationInterrupts
from blockforge.search.fidelity import collect as collecting
from blockforge.search.fidelity.collect import Work, collect, open_store, setting_of
from blockforge.search.fidelity.command import Wanted, run
from blockforge.search.fidelity.measured import Findings, measure, seeds_for, summary
from blockforge.search.fidelity.record import read_fidelity
from blockforge.search.fidelity.table import Network, Setting, Store, Table, Training, parse
from blockforge.search.space.load import load_space
from blockforge.spec import Spec
from blockforge.train import EpochRecord

WORK = Work(networks=9, rungs=(10, 40), repeats=3)


@pytest.fixture
def setting(few: Spec) -> Setting:
    tree = json.loads(json.dumps(few.tree))
    return Setting(space=tree, budget="200kMACs", fit=0.5, data="d", data_digest="0", recipe="micro")


def training(network: int, steps: int, repeat: int, top1: float | None) -> Training:
    return Training(network=network, steps=steps, repeat=repeat, seed=0, top1=top1, seconds=steps / 10, session=0)


def table_of(setting: Setting, trainings: list[Training]) -> Table:
    numbers = sorted({t.network for t in trainings})
    lines = [Network(network=n, hash=str(n), answers={}, widths={}, macs=1, params=1, depth=1) for n in numbers]
    return Table(setting, [*lines, *trainings])


def filled(setting: Setting, noise: float, networks: int = 60) -> Table:
    """Long trainings tell true quality but for noise, short ones nothing."""
    rng, trainings = random.Random(0), []
    for n in range(networks):
        quality = rng.gauss(80, 2)
        for repeat in range(3 if n % 3 == 0 else 1):
            trainings += [
                training(n, 10, repeat, rng.gauss(20, 1)),
                training(n, 20, repeat, quality / 2 + rng.gauss(0, 0.2)),
                training(n, 40, repeat, quality + rng.gauss(0, noise)),
            ]
    return table_of(setting, trainings)


def test_whole_ladders_come_first_and_then_fresh_seeds_for_the_better_third() -> None:
    done: list[Training] = []
    order: list[tuple[int, int, int]] = []
    table = Table.__new__(Table)
    while True:
        table.trainings = {t.key: t for t in done}
        if (job := next(WORK.jobs(table), None)) is None:
            break
        order.append(job)
        done.append(training(*job, top1=float(job[0])))  # later networks are better
    assert order[:12] == [(n, steps, 0) for n in range(6) for steps in WORK.rungs]
    assert order[12:20] == [(n, s, repeat) for n in (5, 4) for repeat in (1, 2) for s in WORK.rungs]
    assert {n for n, _, repeat in order if repeat == 2} == {4, 5, 6, 7, 8}  # 4 and 5 were the best once
    assert len(order) == len(set(order)) == 18 + 5 * 4
    assert not WORK.left(table)


def test_what_is_left_is_counted_before_it_is_known_whose_turn_it_is() -> None:
    assert sorted(WORK.left(None)) == [10] * 15 + [40] * 15


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What was trained, by a function that trains nothing."""
    made: list[tuple[str, int, int]] = []

    def train(arch: Architecture, data: str, recipe: str, steps: int, seed: int, progress: Any) -> EpochRecord:
        made.append((arch.hash, steps, seed))
        if steps == 13:
            raise RunError("it cannot be trained")
        return EpochRecord(1, steps, 1.0, 1.0, len(made) % 7 + steps / 10, 50.0, 0.0, 1.0, 1.0)

    monkeypatch.setattr(collecting, "train_steps", train)
    return made


def wanted(**more: Any) -> Wanted:
    given = {"space": None, "data": "digits", "budget": "20kMACs", "fit": 0.5, "recipe": None, "overrides": ()}
    return Wanted(**{**given, "networks": 6, "rungs": (1, 2), "repeats": 2, **more})


@pytest.fixture
def few_file(few: Spec, tmp_path: Path) -> str:
    file = tmp_path / "few.yaml"
    file.write_text(json.dumps(few.tree))
    return str(file)


def test_a_table_goes_on_where_it_was_stopped(
    trained: list[Any], few_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "f.json"
    findings, _ = run(wanted(space=few_file, networks=3, repeats=1), out)
    assert findings is not None
    assert len(trained) == 6
    text = (file := out.with_suffix(".jsonl")).read_text()
    file.write_text(text + '{"network": 3, "st')  # power was lost here
    findings, _ = run(wanted(data=None, budget=None, fit=None, networks=4, repeats=1), out)  # the rest is as it was
    assert findings is not None
    assert len(trained) == 8 == len(set(trained))
    assert file.read_text().startswith(text)
    assert read_fidelity(out) == findings.fidelity
    run(wanted(networks=4, repeats=1), out)
    assert len(trained) == 8
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_signal_ends_it_between_two_lines(
    trained: list[Any], few_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arch: Architecture, data: str, recipe: str, steps: int, seed: int, progress: Any) -> EpochRecord:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the signal ends this")

    out = tmp_path / "f.json"
    run(wanted(space=few_file, networks=3, repeats=1), out)
    monkeypatch.setattr(collecting, "train_steps", interrupted)
    before = out.with_suffix(".jsonl").read_text()
    findings, number = run(wanted(space=few_file, networks=4, repeats=1), out)
    assert (findings, number) == (None, signal.SIGINT)
    assert out.with_suffix(".jsonl").read_text().startswith(before)
    kept = Store(out.with_suffix(".jsonl")).read()
    assert kept is not None
    assert len(kept.trainings) == 6


def test_two_processes_do_not_make_one_training_twice(trained: list[Any], few_file: str, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    setting = wanted(space=few_file).setting(None)
    store = open_store(out.with_suffix(".jsonl"), setting)
    with Store(store.file).claim((0, 1, 0)) as ours, EvaluationInterrupts() as interrupts:  # somebody else's
        assert ours
        collect(store, Work(3, (1, 2), 1), lambda table, training: None, interrupts)
    table = store.read()
    assert table is not None
    assert sorted(table.trainings) == [(n, s, 0) for n in range(3) for s in (1, 2) if (n, s) != (0, 1)]
    with store.claim((0, 2, 0)) as ours:
        assert not ours  # it is made


def test_what_a_network_cannot_do_is_kept_with_it(trained: list[Any], few_file: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="0 networks were trained at every rung"):
        run(wanted(space=few_file, networks=3, rungs=(1, 13), repeats=1), out := tmp_path / "f.json")
    table = Store(out.with_suffix(".jsonl")).read()
    assert table is not None
    assert {t.failed for t in table.trainings.values()} == {None, "it cannot be trained"}


@pytest.mark.parametrize(
    "error", [MissingExtraError("this needs kornia"), DataError("the images have gone"), OutputError("disk full")]
)
def test_what_is_no_networks_fault_ends_it(
    error: BlockforgeError, trained: list[Any], few_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> EpochRecord:
        raise error

    monkeypatch.setattr(collecting, "train_steps", missing)
    with pytest.raises(type(error), match=str(error)):
        run(wanted(space=few_file, networks=3, repeats=1), out := tmp_path / "f.json")
    table = Store(out.with_suffix(".jsonl")).read()
    assert table is not None
    assert not table.trainings


def test_other_trainings_are_refused(trained: list[Any], few_file: str, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    run(wanted(space=few_file, networks=3, repeats=1), out)
    with pytest.raises(SearchError, match="budget 20kMACs there, 30kMACs here"):
        run(wanted(space=few_file, budget="30kMACs"), out)


def test_a_dry_run_says_the_cost_and_writes_nothing(
    few_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(wanted(space=few_file), tmp_path / "f.json", dry_run=True)
    assert "16 trainings of 6 networks, 24 steps, about" in capsys.readouterr().out
    assert not list(tmp_path.glob("f.*"))


def test_networks_are_drawn_alike_whenever_they_are(few: Spec) -> None:
    setting = setting_of(few, "20kMACs", 0.5, "digits", "micro")
    assert collecting.draw_network(setting, 3, set()) == collecting.draw_network(setting, 3, set())
    line = collecting.draw_network(setting, 3, set())
    arch = Table(setting, [line]).architecture(3)
    assert (arch.hash, arch.macs, arch.params) == (line.hash, line.macs, line.params)
    with pytest.raises(SearchError, match="has the hash 00; this version makes"):
        Table(setting, [line.model_copy(update={"hash": "00"})]).architecture(3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}\n", "line 1"),
        ("no\n", "line 1"),
        ('{"steps": 3}\n', "line 1"),
        ("[]\n", "no mapping"),
        ("", "does not begin"),
    ],
)
def test_another_file_is_no_table(text: str, told: str) -> None:
    with pytest.raises(SearchError, match=told):
        parse(text, "f.jsonl")


def test_figures_tell_a_rung_that_ranks_from_one_that_does_not(setting: Setting) -> None:
    findings = measure(filled(setting, noise=0.3))
    useless, useful, _ = findings.fidelity.rungs
    assert useless.low < 0 < useful.low
    assert findings.fidelity.choose().steps == 20
    assert findings.again == 20
    assert 0.2 < (findings.fidelity.seed_noise[-1] or 0) < 0.4
    ceiling = findings.fresh[-1]
    assert ceiling is not None
    assert ceiling.low > 0.5
    assert "Cheapest rung worth using: 20 steps" in summary(findings)


def test_seeds_are_the_ceiling(setting: Setting) -> None:
    noisy = measure(filled(setting, noise=4.0))
    ceiling, sharp = noisy.fresh[-1], measure(filled(setting, noise=0.1)).fresh[-1]
    assert ceiling is not None
    assert sharp is not None
    assert ceiling.value < 0.6 < 0.8 < sharp.value


def test_a_failed_network_is_left_out_and_told(setting: Setting) -> None:
    table = filled(setting, 0.3)
    table.trainings[5, 10, 0] = training(5, 10, 0, None)
    findings = measure(table)
    assert (findings.fidelity.networks, findings.left_out) == (59, 1)
    assert "1 networks are left out" in summary(findings)


def test_noise_of_chosen_networks_is_that_of_later_seeds(setting: Setting) -> None:
    """A network that was chosen for a lucky training looks noisier than it is."""
    trainings = [training(n, 10, repeat, 70.0 + (repeat == 0)) for n in range(3) for repeat in range(3)]
    findings: Findings = measure(table_of(setting, trainings))
    assert findings.fidelity.seed_noise == (0.0,)
    assert "Seeds made no difference" in summary(findings)


@pytest.mark.parametrize(("points", "seeds"), [(0.25, 63), (0.5, 16), (1.0, 4), (10.0, 2)])
def test_a_smaller_claim_needs_more_seeds(points: float, seeds: int) -> None:
    assert seeds_for(points, 0.5) == seeds


def test_packaged_space_of_another_version_is_refused(tmp_path: Path, setting: Setting) -> None:
    store = open_store(tmp_path / "f.jsonl", setting)
    with pytest.raises(BlockforgeError, match="of another space"):
        open_store(store.file, setting.model_copy(update={"space": dict(load_space("tiny").tree)}))
