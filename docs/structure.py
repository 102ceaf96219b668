"""Measure the plan of the house: `python docs/structure.py [TREE ...]` prints a column a tree; this one by default.

`git worktree add ../before COMMIT && python docs/structure.py ../before .` compares; docs/design.md keeps such a table.
Imports that only type checkers read do not count. The last rows run the tree's own code with this environment's Python.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import networkx as nx

REPO = Path(__file__).resolve().parents[1]
HOMES = {"blockforge": "blockforge", **{f"blockforge.{name}": name for name in ("kernels", "search", "specs")}}
KEY = "post_act"
"""A key of a branch in the language; how many files know it says what a new key costs."""


class Import(NamedTuple):
    """A module imports another; `lazy`: inside a function."""

    user: str
    used: str
    lazy: bool


def modules(tree: Path) -> dict[str, Path]:
    """Every module of the package by its name. Links are not followed, so that each file counts once."""
    named = {}
    for package, home in HOMES.items():
        for file in sorted((tree / home).rglob("*.py")):
            parts = file.relative_to(tree / home).with_suffix("").parts
            named[".".join((package, *(p for p in parts if p != "__init__")))] = file
    return named


def room(module: str) -> str:
    """The folder or file of `blockforge` that a module is in: `blockforge.spec.yaml.tree` -> `spec`."""
    return (*module.split("."), "blockforge")[1] if module != "blockforge" else "blockforge"


def imports(files: dict[str, Path]) -> Iterator[Import]:
    """What of ours each module imports when it runs, wherever in it."""
    for module, file in files.items():
        for name, lazy in imported(file):
            used = name if name in files else name.rpartition(".")[0]
            if used in files and used != module:
                yield Import(module, used, lazy)


def imported(file: Path) -> Iterator[tuple[str, bool]]:
    """What a file imports, `a.b` for `from a import b`, and whether inside a function. Names of types do not count."""
    nodes: list[tuple[ast.AST, bool]] = [(ast.parse(file.read_text(encoding="utf-8")), False)]
    while nodes:
        node, lazy = nodes.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from ((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            nodes += [(child, inside) for child in ast.iter_child_nodes(node)]


def cycles(arrows: set[tuple[str, str]]) -> list[set[str]]:
    """Groups of nodes that reach each other."""
    return [group for group in nx.strongly_connected_components(nx.DiGraph(arrows)) if len(group) > 1]


def measure(tree: Path) -> dict[str, str]:
    """The figures of a tree."""
    files = modules(tree)
    texts = [file.read_text(encoding="utf-8") for file in files.values()]
    found = list(imports(files))
    top = {(i.user, i.used) for i in found if not i.lazy}
    every = {(i.user, i.used) for i in found}
    rooms = {(room(user), room(used)) for user, used in every if room(user) != room(used)}
    return {
        "modules": f"{len(files)}",
        "lines": f"{sum(text.count(chr(10)) for text in texts):,}",
        "files and folders of `blockforge`": f"{len({room(name) for name in files})}",
        "arrows between them": f"{len(rooms)}",
        "of them in cycles": f"{_inside(rooms)}",
        "modules in cycles of imports": f"{_total(top)}",
        "with lazy imports": f"{_total(every)}",
        f"files that know `{KEY}`": f"{sum(KEY in text for text in texts)}",
        **{what: _run(tree, code) for what, code in RUNS.items()},
    }


def _inside(arrows: set[tuple[str, str]]) -> int:
    return sum(a in group and b in group for group in cycles(arrows) for a, b in arrows)


def _total(arrows: set[tuple[str, str]]) -> int:
    return sum(map(len, cycles(arrows)))


# --- what runs

RUNS = {  # each imports first, unwatched, what it needs
    "`compile smt_t`: files, calls between files": "do = lambda: bf.compile('smt_t')\nbf.compile('deit_s')",
    "a search of one trial: files, calls between files": """
import tempfile
def do():
    with tempfile.TemporaryDirectory() as out:
        bf.search("tiny", objectives=["params"], trials=1, seed=0, out=out + "/study", sampler="random")
do()
""",
}
_TRACE = """
import json, sys
import blockforge as bf
bf.__path__.append(OURS[0])  # before there were links, the folders at the top came in by what was installed
{code}
files, hops = set(), 0
def watch(frame, event, _):
    global hops
    file = frame.f_code.co_filename
    if event == "call" and file.startswith(OURS[1:]):
        files.add(file)
        hops += frame.f_back is not None and frame.f_back.f_code.co_filename != file
sys.setprofile(watch)
do()
sys.setprofile(None)
print(json.dumps([len(files), hops]))
"""


def _run(tree: Path, code: str) -> str:
    """Files of ours whose functions run, and calls that come into one from another file."""
    ours = (str(tree.resolve()), *(f"{tree.resolve()}/{home}/" for home in HOMES.values()))
    script = f"OURS = {ours!r}\n" + _TRACE.format(code=code)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tree, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    if done.returncode:
        return f"fails: {done.stderr.strip().splitlines()[-1]}"
    files, hops = json.loads(done.stdout.strip().splitlines()[-1])
    return f"{files}, {hops:,}"


def main(trees: list[Path]) -> None:
    """Print a Markdown table, a column a tree."""
    columns = [measure(tree) for tree in trees]
    heads = [tree.resolve().name if tree.resolve() != REPO else "now" for tree in trees]
    print(f"| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for what in columns[0]:
        print(f"| {what} | {' | '.join(column[what] for column in columns)} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or [REPO])
