"""Every command that prints a table does so at every width: nothing is cut, and what left is named."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import proxies
import pytest
import regret
from rich.console import Console

import blockforge
import blockforge as bf
from blockforge.cli import main, script
from blockforge.cli._output import console
from blockforge.console.text_table import File, Label, Number, TextTable, Words, shortened
from blockforge.measure import models, scaling
from blockforge.search.confirm.entrants import Entrant, Entrants
from blockforge.search.confirm.race import Race
from blockforge.search.confirm.result import Confirmation, Measured
from blockforge.search.confirm.statistics import Interval
from blockforge.search.equal_cost import compare
from blockforge.search.replay import searches, tail
from blockforge.search.report import confirmed
from blockforge.search.study.records import TrialRecord
from blockforge.swapping import result

WIDTHS = (40, 60, 80, 100, 120, 140)
ROOT = Path(blockforge.__file__).parent
COMMANDS = {
    "show": ["show", "sparx_mamba_b"],
    "parts": ["show", "starnet_s1", "--parts"],
    "build": ["build", "specs/narrow/smt.yaml", "--seed", "0"],
    "zoo": ["zoo", "smt*"],
    "doctor": ["doctor"],
    "diff": ["diff", "smt_t", "smt_s"],
    "ablate": ["ablate", "vssd_mixers"],
    "profile": ["profile", "specs/narrow/convnext.yaml", "--batch", "1,2", "--seconds", "0.01"],
    "export": ["export", "specs/narrow/convnext.yaml", "--dynamic", "none", "-o", "{tmp}/net.onnx"],
    "activations": ["analyze", "activations", "specs/narrow/smt.yaml", "--images", "2", "-o", "{tmp}/activations"],
    "cka": ["analyze", "cka", "specs/narrow/smt.yaml", "specs/narrow/vssd.yaml", "--images", "4", "-o", "{tmp}/cka"],
    "search": ["search", "tiny", "--trials", "6", "--budget", "20MMACs", "--seed", "0", "--out", "{tmp}/found"],
    "space": ["space", "tiny", "--draws", "20"],
    "bench compile": ["bench", "compile", "specs/narrow/swin.yaml", "--runs", "3"],
    "bench kernels": ["bench", "kernels", "--op", "linear", "--runs", "3"],
    "bench fidelity": ["bench", "fidelity", "--table", "tiny-fashion"],
    "bench memory": ["bench", "memory", "specs/narrow/convnext.yaml", "--size", "32", "--batch", "1"],
}  # fmt: skip


TABLE = str(Path(regret.__file__).parent / "tables" / "search_runs.csv")
SCRIPTS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "proxies": (proxies.compare_proxies, ["--truth", "own"]),
    "regret": (regret.compare_strategies, ["--runs", TABLE, "--strategies", "random,tpe", "--trials", "20"]),
}


def of_compare() -> TextTable:
    row = compare.Row("rank1_score98.00_3.98MMACs_d61842cd", "0" * 16, 3_980_000, 743_000, 10, (16, 24, 88, 96), 3,
                      98.0, 0.26, 97.8, 98.3, 0.146, 115.3, {0: 98.3, 1: 97.8, 2: 97.9})  # fmt: skip
    return compare.table([row, row], "95% to 100% of 4MMACs, micro on mnist5k, 10 epochs, 3 seeds")


def of_models() -> TextTable:
    found = models.Comparison("vmamba_tiny_s1l8", 8, 1234.5, 2345.6, 0.53, 0.51, 0.57, 12_345_678, 23_456_789, 1.2e-6)
    return models.comparisons_table([found], train=True)


def of_scaling() -> Any:
    points = [scaling.Point("numba", side, side * side, side * 0.5) for side in (56, 112)]
    return scaling.table(points, True, "cpu", 1)


def of_confirmed() -> TextTable:
    trial = TrialRecord(7, "scored", hash="0" * 16, macs=487_000, params=32_800)
    val, test = Interval(93.31, 92.79, 93.71, values=5), Interval(92.75, 91.9, 93.6, values=5)
    winner = Measured(Entrant("finalist", "rank 12", trial), val, test)
    other = Measured(
        Entrant("random", "the best of 24 random candidates", trial), val, test, Interval(0.61, -0.12, 1.34, values=5)
    )
    known = Confirmation(Entrants((winner.entrant,), (other.entrant,)), Race([]), {}, winner, (other,))
    return confirmed.text_table(
        known, "Confirmed: trained again from scratch by 30 epochs of the recipe micro on digits"
    )


def of_searches() -> TextTable:
    best = {
        (s, screened): np.full((3, 20 if screened else 60), 84.25) for s in searches.SAMPLERS for screened in (0, 1)
    }
    return searches.text_table(searches.Searches(bf.benchmark("tiny-fashion"), best, best, 84.96, 16))  # type: ignore[arg-type]


def of_tail() -> TextTable:
    share = (0.8765, 0.6543, 0.9876)
    rung = tail.Rung(160, dict.fromkeys(tail.ETAS, share), dict.fromkeys(tail.ETAS, 0.4321), 0.4567, 0.6789)
    return tail.text_table(tail.Tail((rung, rung), 12, 345))


def of_swap() -> TextTable:
    row = {"macs": 2_420_000, "share": 59.6, "params": 439_000, "thinner": 18, "left_out": 3}
    scores = {"kl": 0.0123, "agreement": 99.2, "top1": 97.7, "test_top1": 97.5}
    return result.text_table([{"budget": "3GFLOPs,20Mparams", **row, **scores}])


TABLES: dict[str, Callable[[], Any]] = {
    "compare": of_compare,
    "models": of_models,
    "scaling": of_scaling,
    "confirmed": of_confirmed,
    "searches": of_searches,
    "swap": of_swap,
    "tail": of_tail,
}
"""Tables whose commands measure for long."""


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What commands hand to their consoles on standard output."""
    objects: list[Any] = []
    real = Console.print

    def record(self: Console, *given: Any, **how: Any) -> None:
        if self.file is sys.stdout:
            objects.extend(given)
        real(self, *given, **how)

    monkeypatch.setattr(Console, "print", record)
    return objects


def rendered(objects: list[Any], width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same objects at another width, by the console of the commands."""
    monkeypatch.setenv("COLUMNS", str(width))
    out = console()
    out.file = io.StringIO()
    for each in objects:
        out.print(each)
    return out.file.getvalue()


def figures(text: str) -> set[str]:
    """The words with digits, without punctuation that may stand behind them."""
    words = (w.strip(".,;:()") for w in re.findall(r"\S*\d\S*", text))
    return {w for w in words if "…" not in w}


def check_widths(objects: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rendered(objects, 1000, monkeypatch)
    for width in WIDTHS:
        shown = rendered(objects, width, monkeypatch)
        assert figures(shown) <= figures(whole), f"cut at {width}: {figures(shown) - figures(whole)}"
        for line in shown.splitlines():
            longest = max(map(len, line.split()), default=0)
            assert len(line.rstrip()) <= width or longest > width // 2 or line.startswith("  "), f"{width}: {line}"


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_print_at_every_width(
    name: str, printed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT.parent if (ROOT.parent / "search").is_dir() else ROOT)
    assert main([word.replace("{tmp}", str(tmp_path)) for word in COMMANDS[name]]) == 0
    assert printed
    check_widths(printed[:], monkeypatch)


@pytest.mark.parametrize("name", SCRIPTS)
def test_experiments_print_at_every_width(name: str, printed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert script(*SCRIPTS[name]) == 0
    check_widths(printed[:], monkeypatch)


@pytest.mark.parametrize("name", TABLES)
def test_tables_print_at_every_width(name: str, printed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    check_widths([TABLES[name]()], monkeypatch)


MADE_BY = {
    "summary": "show", "result_rows": "activations", "report": "search", "space_report": "space",
    "kernels": "bench kernels", "compile": "bench compile",
    "peaks": "bench memory", "measured": "bench fidelity", "result": "swap",
}  # fmt: skip
"""Modules that make a table -> the case that prints it, where that has another name."""


def test_every_module_with_a_table_is_tried() -> None:
    files = [file for folder in (ROOT, ROOT.parent / "search") for file in folder.rglob("*.py")]
    makers = {file.stem for file in files if re.search(r"\bTextTable\(", file.read_text("utf-8"))}
    assert {MADE_BY.get(maker, maker) for maker in makers} <= {*COMMANDS, *TABLES}


def table(*rows: tuple[str, ...]) -> TextTable:
    made = TextTable(Label("layer"), Words("ops"), Number("MACs"), Number("peak", leaves=2), Words("bar", leaves=1),
                     File("file"), title="title")  # fmt: skip
    for row in rows:
        made.add_row(*row)
    return made


ROWS = [
    (
        f"stages.{i}.layers.1.attention",
        "attention and mlp",
        "1.34G",
        "12.3 MB",
        "███ 23%",
        f"best/rank{i}_score8.02.yaml",
    )
    for i in range(2)
]


def at(width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out, highlight=False).print(table(*ROWS), crop=False)
    return out.getvalue()


def test_a_table_with_room_has_everything() -> None:
    assert "no room" not in at(140)
    assert at(140).count("best/rank") == 2


def test_files_leave_first_and_stay_whole() -> None:
    shown = at(90)
    assert shown.splitlines()[-2:] == [f"  {row[0]}  {row[-1]}" for row in ROWS]
    assert "no room" not in shown


def test_columns_leave_in_their_order() -> None:
    assert "no room at this width for: bar\n" in at(70)
    assert "no room at this width for: bar, peak\n" in at(50)


def test_labels_stay_distinct() -> None:
    lines = [line for line in at(50).splitlines() if "1.34G" in line]
    assert len({line.split()[0] for line in lines}) == 2


def test_no_room_for_a_table() -> None:
    shown = at(20)
    assert "stages.0.layers.1.attention\n" in shown
    assert "  peak 12.3 MB\n" in shown
    assert "  file best/rank0_score8.02.yaml\n" in shown


def test_square_brackets_are_no_markup() -> None:
    out = io.StringIO()
    made = TextTable(Label("value"))
    made.add_row("[bold]x[/bold] [3, 5]")
    Console(width=60, file=out).print(made)
    assert "[bold]x[/bold] [3, 5]" in out.getvalue()


def test_the_end_of_a_label_tells_more() -> None:
    assert shortened("stages.2.layers.11.mlp", 12) == "sta…s.11.mlp"
    assert shortened("short", 12) == "short"


def test_prose_breaks_between_words_and_paths_do_not_break(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    path = "runs/" + "long" * 20 + ".yaml"
    console().print(f"a sentence that is longer than thirty columns, with {path}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == path
    assert all(len(line) <= 30 for line in lines[:-1])
