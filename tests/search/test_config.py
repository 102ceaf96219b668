"""Settings of a search: laid over one another, read from a file with errors that point into it, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.errors import BlockforgeError, SearchError, SpecError
from blockforge.search import open_result, search
from blockforge.search.study.config import SearchConfig, given
from blockforge.search.study.config_files import read_config
from blockforge.spec import Spec

TINY = str(Path(__file__).parent.parent / "data" / "search" / "tiny.yaml")
FILE = f"""
space: {{source: {TINY}, overrides: {{num_classes: 4}}}}
budget: 1MFLOPs
goal:
  objectives: [depth, params]
  trials: 3
proposals: {{sampler: random, seed: 7}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "settings.yaml").write_text(FILE)
    return tmp_path / "settings.yaml"


def test_what_is_set_goes_over_what_is_below() -> None:
    below = given(proposals={"seed": 3, "sampler": "random"}, workers={"number": 2})
    own = given(proposals={"seed": 0, "sampler": None}, goal={"trials": 5})
    config = own.over(below)
    assert (config.proposals.seed, config.proposals.sampler, config.workers.number) == (0, "random", 2)
    assert (config.goal.trials, config.goal.eta, below.proposals.seed) == (5, 3, 3)
    assert given(space={"source": "smt"}).over(config).goal.trials == 5, "what was laid over stays set"


def test_options_go_before_the_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--config", str(file), "--trials", "2", "--set", "num_classes=5", "--out", "run"]) == 0
    result = open_result("run")
    assert (result.evaluated, result.plan.seed, result.plan.sampler) == (2, 7, "random")
    assert (str(result.budget), result.plan.objective) == ("1.00M MACs", "depth, params")
    assert result.space.tree["num_classes"] == 5
    assert main(["search", "--config", str(file)]) == 0
    assert Path("runs/tiny-1MFLOPs-seed7/trials.csv").is_file()


def test_the_written_settings_make_the_same_search_again(file: Path, tmp_path: Path) -> None:
    first = search(config=file, out=tmp_path / "first")
    again = search(config=tmp_path / "first" / "config.yaml", out=tmp_path / "again")
    assert [t.hash for t in again.trials] == [t.hash for t in first.trials]
    assert again.plan.identity() == first.plan.identity()
    assert read_config(tmp_path / "again" / "config.yaml").kept() == again.plan.config.kept()


def test_a_study_without_new_settings_goes_on_to_its_own_end(tiny: Spec, tmp_path: Path) -> None:
    search(tiny, objective="params", sampler="random", trials=5, out=tmp_path)
    assert search(out=tmp_path).target == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goal:\n  objctives: [params]", r":2:3: .*there is no key 'objctives' here .*did you mean 'objectives'"),
        ("goal: {eta: many}", r":1:13: .*this should be a whole number, not the text 'many' \(goal.eta\)"),
        ("budget: {limits: 5GFLIPs}", r":1:18: error\[value\]: the unit 'GFLIPs' is not known"),
        ("budget: {limits: {mac: 5}}", r":1:18: error\[value\]: no limits are named mac"),
        ("goal: {objectives: [params, expresivity]}",
         r":1:29: error.*no objective named 'expresivity' \(goal.objectives\[1\]\).*did you mean 'expressivity'"),
        ("goal: {objectives: [3]}", r":1:21: error.*this should be a name, as text, not 3"),
        ("goal: {objectives: [~]}", r":1:21: error.*there is no value here"),
        ("proposals: {sampler: magic}", r":1:22: error.*no sampler named 'magic'"),
        ("workers: {launcher: slurm}", r":1:21: error.*this should be 'local' or 'ray', not 'slurm'"),
        ("space: {source: [tiny]}", r":1:17: error.*this should be a name, a file or a spec, not a list"),
        ("goal: {trial_timeout: soon}", r":1:23: error.*'soon' is no length of time"),
        ("goal: {objectives: []}", r":1:20: error.*this list should have at least 1 item"),
        ("proposals: {seed: -1}", r":1:19: error.*this should be at least 0, not -1"),
        ("workers: {lease: 0}", r":1:18: error.*this should be more than 0.0, not 0"),
        ("workers: {max_idle: 0}", r":1:21: error.*this should be at least 1, not 0"),
        ("budget: {limits: 5GFLOPs, fit: 7}", r":1:32: error.*this should be at most 1.0, not 7"),
        ("space: {start: {a: 3}}", r":1:16: error.*the values of the holes of 'a' are a mapping, not 3"),
        ("- tiny", r"error\[config\]: settings are a mapping of keys"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_have_a_place_and_a_hint(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text + "\n")
    with pytest.raises(SpecError, match=r"(?s)wrong\.yaml" + message if text[0] != "-" else message):
        read_config(tmp_path / "wrong.yaml")


def test_mistakes_in_arguments_are_told() -> None:
    with pytest.raises(SpecError, match=r"this should be a whole number, not the text '3' \(goal.eta\)"):
        search("tiny", eta="3")  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="0 workers are none"):
        search("tiny", workers=0)


@pytest.mark.parametrize(("name", "value"), [("start", 3), ("budget", 3), ("config", 3), ("objectives", "params")])
def test_arguments_of_another_type_are_told(tiny: Spec, name: str, value: object) -> None:
    with pytest.raises(BlockforgeError, match=f"not {value!r}"):
        search(tiny, trials=1, **{"objective": None, name: value})


def test_settings_are_frozen_and_complete() -> None:
    config = SearchConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.goal.trials = 3  # type: ignore[misc]
    assert SearchConfig.model_validate(config.kept()).kept() == config.kept()


def test_the_manuals_example_is_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    (tmp_path / "settings.yaml").write_text(page.partition("```yaml settings.yaml\n")[2].partition("```")[0])
    config = read_config(tmp_path / "settings.yaml")
    assert (config.workers.number, config.goal.trials, config.budget.fit) == (4, 200, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goal: {trials: 0}", r":3:16: error\[value\]: 0 trials are none \(goal.trials\)(?s:.*)hint: give 1 or more"),
        ("workers: 0", r":3:10: .*0 workers are none \(workers.number\)"),
        ("goal: {eta: 1}", r":3:13: .*at most every second candidate goes up \(goal.eta\)"),
        ("goal: {objectives: [depth, params], weights: [1]}", r":3:46: .*as many weights.*\(goal.weights\)"),
        ("goal: {objectives: [depth, depth]}", r":3:20: .*names of their own.*\(goal.objectives\)"),
        ("goal: {objectives: ['micro:nosuch=1']}", r":3:21: .*no option 'nosuch' \(goal.objectives\[0\]\)"),
        ("goal: {data: nosuch}", r":3:14: .*no data source 'nosuch' \(goal.data\)"),
        ("confirm: {recipe: nosuch}", r":3:19: error\[file\]: no recipe named 'nosuch' \(confirm.recipe\)"),
        ("confirm: {recipe: {extends: micro, lr: -1}}", r":3:40: .*\(confirm.recipe.lr\)"),
        ("proposals: {pruner: 'optuna.pruners:MedianPruner'}", r":3:21: .*nothing to go by.*\(proposals.pruner\)"),
        ("proposals: {sampler: 'optuna.samplers:GPSampler:odd=1'}", r":3:22: .*no option 'odd' \(proposals.sampler\)"),
        ("workers: {address: auto}", r":3:20: .*--address is for Ray tasks \(workers.address\)"),
        ("study: {storage: nosuch}", r":3:18: .*'nosuch' is no URL of a database \(study.storage\)"),
        ('study: "a\\0b"', r":3:8: .*a null byte is in this text.*\(study\)"),
        ("budget: {limits: {macs: -1}}", r":3:18: .*the budget's macs is -1, and should be a number above 0"),
        ("budget: 1FLOPs", r":3:9: .*no candidate of 'tiny' fits in 1 MACs \(budget.limits\)(?s:.*)smallest one"),
    ],
)
def test_mistakes_that_a_search_finds_have_their_place_too(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"space: {TINY}\n\n{text}\n")
    with pytest.raises(BlockforgeError, match=rf"wrong\.yaml{message}"):
        search(config=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overrides: {stages.9.dim: 1}", r":2:\d+: error\[set\]: stages has no item '9'"),
        ("overrides: [stages.9.dim=1]", r":2:\d+: error\[set\]: stages has no item '9'"),
        ("start: [smt_t]", r":2:\d+: .*'smt_t' is no point of 'tiny' \(space.start\)"),
        ("start: {a: {nosuch: 1}}", r":2:\d+: .*the start 'a' fills the hole 'nosuch', and there is none"),
        ("start: {a: {stages.0.dim: 9}}", r":2:\d+: .*the start 'a' cannot be: 9 is no value of 'stages.0.dim'"),
    ],
)  # fmt: skip
def test_mistakes_about_the_space_have_their_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"space: {{source: {TINY},\n {text}}}\n")
    with pytest.raises(BlockforgeError, match=rf"wrong\.yaml{message}"):
        search(config=file)


def test_what_is_given_beside_a_file_is_not_looked_for_in_it(file: Path) -> None:
    with pytest.raises(SearchError, match=r"^0 trials are none\n"):
        search(config=file, trials=0)
