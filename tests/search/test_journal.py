"""A damaged journal: its end is put aside, damage elsewhere is told with its line, what can be read is copied."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blockforge.cli import main
from blockforge.search import SearchError, SearchResult, open_result, search
from blockforge.search.study.journal import JOURNAL
from blockforge.search.study.salvage import salvage

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    """A finished search."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, search(TINY, trials=8, budget="1MFLOPs", objective="depth", out=folder, sampler="random")


def damaged(whole: tuple[Path, SearchResult], tmp_path: Path, change: Callable[[bytes], bytes]) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    journal = folder / JOURNAL
    journal.write_bytes(change(journal.read_bytes()))
    return folder


ENDS = {
    "binary": b"\xff\xfe\x00\x80\n", "other JSON": b"[1, 2]\n", "no operation": b'{"op_code": 99, "worker_id": "w"}\n',
    "half UTF-8": b'{"op_code":2,"worker_id":"\xc3\n', "half a line": b'{"op_code":5,"wor', "empty": b"\n",
    "zeros": b"\0" * 5000, "several": b"one\ntwo\nthree", "deep": b"[" * 100_000 + b"\n", "a number": b"7\n",
    "lacks": b'{"op_code":8,"worker_id":"w"}\n',
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_damaged_end_is_put_aside_and_the_search_goes_on(whole, tmp_path: Path, end: bytes, capsys) -> None:
    folder = damaged(whole, tmp_path, lambda text: text + end)
    before = (folder / JOURNAL).read_bytes()
    assert len(open_result(folder).trials) == len(whole[1].trials)
    assert (folder / JOURNAL).read_bytes() == before  # reading changes nothing
    for trials in (9, 10):  # again and again
        assert search(trials=trials, out=folder).evaluated == trials
    assert (folder / (JOURNAL + ".cut")).read_bytes() == end
    assert f"{len(end)} damaged bytes at its end were moved" in capsys.readouterr().err


def test_a_line_that_stands_twice_at_the_end(whole, tmp_path: Path) -> None:
    folder = damaged(whole, tmp_path, lambda text: text + text.splitlines(keepends=True)[-1])
    assert [t.values for t in open_result(folder).trials] == [t.values for t in whole[1].trials]
    assert search(trials=9, out=folder).evaluated == 9


def lines_of(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def flip(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([text[at] ^ (1 << rng.randrange(8))]) + text[at + 1 :]


def insert(text: bytes, rng: random.Random) -> bytes:
    lines = lines_of(text)
    lines.insert(rng.randrange(1, len(lines)), rng.choice([b"garbage\n", b"\xc3(\n", b'{"a":1}\n', b"5\n"]))
    return b"".join(lines)


def double(text: bytes, rng: random.Random) -> bytes:
    lines = lines_of(text)
    at = rng.randrange(1, len(lines) - 1)
    return b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


def remove(text: bytes, rng: random.Random) -> bytes:
    lines = lines_of(text)
    del lines[rng.randrange(1, len(lines) - 1)]
    return b"".join(lines)


def cut(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(lines_of(text)[0]) + 1, len(text))]


_FIRST = 5
"""Lines that say what a study is: that it begins, names of values, settings, what they name, identity."""


@pytest.mark.parametrize("change", [flip, insert, double, remove, cut], ids=lambda f: f.__name__)
def test_random_damage_is_never_taken_for_what_it_is_not(whole, tmp_path: Path, change) -> None:
    """Every reading is an error that says how to go on, or gives trials as they were."""
    right = {t.number: (t.state, t.hash, t.values) for t in whole[1].trials}
    told = 0
    for seed in range(30):
        rng = random.Random(seed)
        folder = damaged(whole, tmp_path / str(seed), lambda text, rng=rng: change(text, rng))
        before = (folder / JOURNAL).read_bytes()
        said = ""
        try:
            found = open_result(folder)
        except SearchError as e:
            said = str(e)
        if said:
            told += (line := re.search(r"is damaged at line (\d+): .*\n  hint: .*--salvage", said)) is not None
            early = "holds no study" in said or (line is not None and int(line[1]) <= _FIRST)
            salvage(folder, folder.with_name("mended"))
            try:
                found = open_result(folder.with_name("mended"))
            except SearchError:
                assert early, said  # what the study is was in the damaged lines
                continue
        assert (folder / JOURNAL).read_bytes() == before
        for trial in found.trials:
            if trial.state not in ("running", "invalid", "interrupted"):
                assert (trial.state, trial.hash, trial.values) == right[trial.number]
    assert told or change is cut


def test_the_command_says_the_line_and_salvages(whole, tmp_path: Path, capsys) -> None:
    def spoil(text: bytes) -> bytes:
        lines = lines_of(text)
        at = next(i for i, line in enumerate(lines) if i > len(lines) // 2 and line.startswith(b'{"op_code":4'))
        lines[at] = lines[at].replace(b'"params"', b'"parans"')
        numbers.append(at + 1)
        return b"".join(lines)

    numbers: list[int] = []
    folder = damaged(whole, tmp_path, spoil)
    before = (folder / JOURNAL).read_bytes()
    for command in (["report", str(folder)], ["search", "--resume", str(folder), "--trials", "9"]):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert f"{JOURNAL} is damaged at line {numbers[0]}: it is not as it was written" in err
        assert f"--salvage {folder}-salvaged" in err
    assert main(["report", str(folder), "--salvage", f"{folder}-salvaged"]) == 0
    assert "1 trials lost" in capsys.readouterr().out
    assert (folder / JOURNAL).read_bytes() == before
    assert main(["report", str(folder), "--salvage", f"{folder}-salvaged"]) == 1  # nothing is written over
    mended = search(trials=12, out=f"{folder}-salvaged")
    assert mended.evaluated == 12
    same = {t.number: t.values for t in mended.trials if t.state == "scored"}
    assert sum(same.get(t.number) == t.values for t in whole[1].trials if t.state == "scored") >= 7


def test_an_empty_journal_is_no_new_search(whole, tmp_path: Path, capsys) -> None:
    folder = damaged(whole, tmp_path, lambda text: b"")
    assert main(["search", "tiny", "--trials", "2", "--out", str(folder)]) == 1
    message = f"{JOURNAL} holds no study, but {folder} holds what one has left: space.yaml, trials.csv"
    assert message in capsys.readouterr().err
    assert (folder / JOURNAL).read_bytes() == b""
    (folder / JOURNAL).unlink()
    assert main(["search", "tiny", "--trials", "2", "--out", str(folder)]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "hint: bring it back from a copy, or start anew in another folder" in err
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / JOURNAL).write_bytes(b"")  # a search that died before its first line
    assert search(TINY, trials=1, objective="depth", out=tmp_path / "new").evaluated == 1


def test_a_journal_of_earlier_versions_and_lines_of_plain_optuna_are_read(whole, tmp_path: Path) -> None:
    def plain(text: bytes) -> bytes:
        logs = [json.loads(line) for line in lines_of(text)]
        return b"".join(
            json.dumps({k: v for k, v in g.items() if k not in ("at", "crc")}).encode() + b"\n" for g in logs
        )

    folder = damaged(whole, tmp_path, plain)
    assert [t.values for t in open_result(folder).trials] == [t.values for t in whole[1].trials]
    assert search(trials=9, out=folder).evaluated == 9
