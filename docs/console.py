"""The console blocks of the pages: run in a folder of their own, compared with the page, written into it anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("blockforge", "ls", "cp", "python")
ELIDED = "..."
"""A line that stands for any lines."""
MEASURED = re.compile(
    r"\b\d[\d.,]*(?= ?(?:ms|s|minutes|images/s|threads|KB/s)\b)"  # times and speeds
    r"|(?<=\()\d+(?= images/s\))"
)
PROGRESS = re.compile(r"^(?:\d+/\d+ evaluated, .*|[\w ]+: \d+ of \d+(?: [\w ]+)?)\n", re.MULTILINE)
"""Lines of long work under way come by the clock: no page shows them."""
_NEAR = 0.1
"""How much the decimals of a training or a score may differ from machine to machine, of themselves."""


class Block(NamedTuple):
    """A fenced block: its page, line, language, second word and text."""

    page: Path
    line: int
    language: str
    role: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    content = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(content):
        language, _, role = match["info"].strip().partition(" ")
        found.append(Block(page, content.count("\n", 0, match.start()) + 1, language, role, match["text"]))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, and what stands below each."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    pairs = [re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL) for part in parts]
    return [(pair[1], pair[2]) for pair in pairs if pair]


def write_files(page: Path, folder: Path) -> None:
    """The page's files, and copies of the folders that its commands name."""
    for block in blocks_of(page):
        if "." in block.role:
            (folder / block.role).write_text(block.text, encoding="utf-8")
    for name in ("specs", "search", "docs/experiments"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def printed_by(command: list[str] | str, folder: Path, check: bool = True) -> str:
    """What a command prints, both streams together, in a window of 100 columns without colours."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    done = subprocess.run(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
        shell=isinstance(command, str),
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout
    return PROGRESS.sub("", done.stdout)


def run_block(block: Block, folder: Path) -> list[tuple[str, str, str]]:
    """Of each command of a block: itself, what the page says it prints, what it prints."""
    found = []
    for command, expected in commands(block):
        assert command.split()[0] in PROGRAMS, command
        found.append((command, expected, printed_by(command, folder, check=False)))
    return found


def same(printed: str, expected: str, near: bool) -> bool:
    """Whether a page says what a command prints: but for times and speeds, trailing spaces and elided lines."""
    lines, wanted = _plain(printed), _plain(expected)
    if ELIDED not in wanted:
        return len(lines) == len(wanted) and all(_alike(a, b, near) for a, b in zip(lines, wanted, strict=True))
    at = wanted.index(ELIDED)
    head, tail = wanted[:at], wanted[at + 1 :]
    if len(lines) < len(head) + len(tail):
        return False
    kept = lines[:at] + lines[len(lines) - len(tail) :]
    return all(_alike(a, b, near) for a, b in zip(kept, head + tail, strict=True))


def _plain(text: str) -> list[str]:
    return [MEASURED.sub("#", line.rstrip()) for line in text.rstrip().splitlines()]


def _alike(line: str, wanted: str, near: bool) -> bool:
    if not near:
        return line == wanted
    line, wanted = (re.sub(r"\b\d\.\de-\d\d\b", "#", text) for text in (line, wanted))  # rounding errors
    figures = re.compile(r"\d+\.\d+")
    if figures.sub("#", line).split() != figures.sub("#", wanted).split():
        return False
    pairs = zip(map(float, figures.findall(line)), map(float, figures.findall(wanted)), strict=True)
    return all(abs(a - b) <= _NEAR * max(abs(a), abs(b)) for a, b in pairs)


def rewritten(page: Path, folder: Path) -> str:
    """The page with the output of its console blocks as it is now."""
    write_files(page, folder)
    content = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.language == "console":
            new = "".join(f"$ {command}\n{_shown(*texts)}" for command, *texts in run_block(block, folder))
            content = content.replace(block.text, new, 1)
    return content


def _shown(expected: str, printed: str) -> str:
    """What is printed, elided where the page elides."""
    lines, wanted = [line.rstrip() for line in printed.rstrip().splitlines()], expected.rstrip().splitlines()
    if ELIDED in wanted:
        at = wanted.index(ELIDED)
        lines = [*lines[:at], ELIDED, *lines[len(lines) - (len(wanted) - at - 1) :]]
    return "".join(f"{line}\n" for line in lines)


def rewrite(page: Path, scratch: Path) -> None:
    """Run a page's commands and write their output into it."""
    folder = scratch / page.stem
    folder.mkdir()
    page.write_text(rewritten(page, folder), encoding="utf-8")
    shutil.rmtree(folder)
