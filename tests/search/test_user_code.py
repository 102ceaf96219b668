"""Code of the user's: what runs it, what does not, and what is told of it."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.search import SearchError, open_result, search
from blockforge.search.objectives.measure import as_measure, check_remakable
from blockforge.search.objectives.registry import make

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an objective that imports what lies beside it, at once and later."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "beside_one.py").write_text("def twice(x):\n    return 2.0 * x\n")
    (folder / "ends.py").write_text("raise SystemExit(3)")
    (folder / "beside_two.py").write_text("ONE = 1.0\n")
    (folder / "own_score.py").write_text(
        "from pathlib import Path\nfrom beside_one import twice\n"
        "Path(__file__).with_name('ran').touch()\n"
        "def score(arch, factor=1.0, sign=True):\n"
        "    from beside_two import ONE\n    return factor * twice(arch.depth) * ONE\n"
        "score.direction = 'minimize'\n"
        "def needs(arch, steps):\n    return float(steps)\n"
        "class Made:\n"
        "    def __init__(self, factor=1.0):\n        self.factor = factor\n"
        "    def __call__(self, arch):\n        return self.factor * arch.depth\n"
        "def ends(arch):\n    raise SystemExit(3)\n"
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n"
        "def mute(arch):\n    raise Mute\n"
        "def priced(arch):\n    return 1.0\npriced.cost = 'dear'\n"
        "def broken(arch):\n    raise RuntimeError(f'no depth {arch.depth}')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_score", "beside_one", "beside_two"):
        sys.modules.pop(name, None)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_with_imports_beside_it_and_options(place: Path, workers: int, capfd) -> None:
    found = search(
        TINY, objective="code/own_score.py:score:factor=3,sign=false", trials=3, workers=workers, out="run",
        sampler="random", progress=True,
    )  # fmt: skip
    assert all(t.values == (6.0 * t.depth,) for t in found.ranked)
    assert found.plan.directions == ["minimize"]
    assert (
        f"objective code/own_score.py:score:factor=3,sign=false: runs {place / 'own_score.py'}"
        in capfd.readouterr().err
    )
    assert found.heading == "Candidates by code/own_score.py:score:factor=3,sign=false"


def test_reading_a_study_imports_nothing(place: Path, capsys) -> None:
    search(TINY, objective="code/own_score.py:score", rungs=["depth"], trials=2, out="run", sampler="random")
    (place / "ran").unlink()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from blockforge.cli import main; sys.exit(main(['report', 'run']))"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (place / "ran").exists()
    assert open_result("run").plan.directions == ["minimize"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code/own_score.py:score:factr=3", r"has no option 'factr'\n  hint: did you mean 'factor'"),
        ("code/own_score.py:needs", r"needs the option 'steps'\n  hint: code/own_score.py:needs:steps=\.\.\."),
        ("code/own_score.py:nothing", "cannot be imported: .*nothing"),
        ("code/nowhere.py:score", r"there is no file code/nowhere.py\n  hint: "),
        ("no_such_module_here:score", "the objective no_such_module_here:score cannot be imported"),
        ("code/ends.py:score", r"code/ends.py:score cannot be imported: SystemExit: 3"),
        ("./code:score", r"no objective named './code'\n  hint: .*file\.py:function"),
        ("code/own_score.py:priced", r"the cost of code/own_score.py:priced is 'dear'\n  hint: "),
        ("macs:cost=nan", r"the cost of macs:cost=nan is nan"),
        ("train:recipe=micro", r"'train' needs the option 'data'\n  hint: train:data="),
        ("micro:seconds=abc", r"'micro:seconds=abc' cannot be made: .*\n  hint: options: .*seconds"),
        ("latency:batch=0", r"latency measures no images"),
        ("expresivity", r"did you mean 'expressivity'.*file\.py:function"),
    ],
)
def test_mistakes_are_told_at_the_start(place: Path, text: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(TINY, objective=text, trials=1, out="run")
    assert not Path("run").exists()


def test_a_class_is_made_with_its_options(place: Path) -> None:
    import blockforge as bf

    assert make("code/own_score.py:Made:factor=5")(bf.compile("vssd_tiny")) == 5.0 * bf.compile("vssd_tiny").depth


def test_what_a_notebook_holds_is_refused_for_workers_with_a_way(place: Path) -> None:
    def closure(arch) -> float:
        return 1.0

    def of_a_notebook(arch) -> float:
        return 1.0

    of_a_notebook.__module__, of_a_notebook.__qualname__ = "__main__", "of_a_notebook"
    for objective in (
        closure,
        of_a_notebook,
        lambda arch: 1.0,
        functools.partial(closure),
        make("code/own_score.py:Made"),
    ):
        with pytest.raises(SearchError, match=r"workers cannot import the objective .*\n  hint: .*file.py:function\n"):
            check_remakable([as_measure(objective)])
        assert search(TINY, objective=objective, trials=1, sampler="random").evaluated == 1


def test_a_search_without_a_score_is_no_success(place: Path, capsys) -> None:
    assert main(["search", str(TINY), "--objective", "code/own_score.py:broken", "--trials", "2", "--out", "run"]) == 1
    told = capsys.readouterr()
    assert "error: no candidate has a score: first failure (trial 0): RuntimeError: no depth" in told.err
    assert "traces of all: run/failures.txt" in told.err
    assert (Path("run") / "failures.txt").read_text().count("Traceback") == 2


@pytest.mark.parametrize(
    ("name", "reason"), [("ends", "SystemExit: 3"), ("mute", "Mute, whose text raises RuntimeError")]
)
def test_whatever_an_objective_raises_is_kept_with_the_trial(place: Path, name: str, reason: str, capsys) -> None:
    assert main(["search", str(TINY), "--objective", f"code/own_score.py:{name}", "--trials", "2", "--out", "run"]) == 1
    assert f"error: no candidate has a score: first failure (trial 0): {reason}" in capsys.readouterr().err


def test_starts_that_do_not_fit_are_named(place: Path, capsys) -> None:
    assert main(["search", "smt", "--objective", "params", "--start", "smt_b", "--budget", "2GFLOPs", "--trials", "1",
                 "--sampler", "random", "--out", "run"]) == 0  # fmt: skip
    assert "The start smt_b was not evaluated: " in capsys.readouterr().out
    assert "The start smt_b was not evaluated" in (Path("run") / "report.html").read_text()


def test_where_hardly_anything_fits_the_smallest_begins(place: Path, capsys) -> None:
    found = search("hybrid", objective="depth", budget="300MFLOPs", trials=2, sampler="random")
    assert found.evaluated == 2
    with pytest.raises(ValueError, match=r"no candidate of 'hybrid' fits in 1\.00M MACs\n(.*\n)*.*--fit 0\.97"):
        search("hybrid", objective="depth", budget="1MFLOPs", trials=2)
    assert search("tiny", objective="depth", budget="40Kparams", fit=0.9, trials=1, sampler="random").evaluated == 1
