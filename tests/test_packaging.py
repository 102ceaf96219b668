"""What ships, what imports what, and what no file may hold."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import blockforge
from blockforge.one_tree import at_home

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "docs"))

import structure  # noqa: E402
from structure import imported  # noqa: E402

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LINKED = ("kernels", "search", "specs")
HOMES = {"blockforge": "blockforge", **{f"blockforge.{name}": name for name in LINKED}}
FOUND = [f for home in HOMES.values() for f in sorted((REPO / home).rglob("*")) if f.is_file()]
PACKAGE_FILES = [f for f in FOUND if "__pycache__" not in f.parts]
MODULES = [f for f in PACKAGE_FILES if f.suffix == ".py"]
OTHER_SOURCES = [f for folder in ("tests", "docs", ".ci") for f in sorted((REPO / folder).rglob("*.py"))]


def module_name(file: Path) -> str:
    """`kernels/scan.py` -> `blockforge.kernels.scan`."""
    package, home = next((p, h) for p, h in HOMES.items() if (REPO / h) in file.parents)
    parts = file.relative_to(REPO / home).with_suffix("").parts
    return ".".join((package, *(p for p in parts if p != "__init__")))


# --- what ships


def test_every_folder_with_code_is_a_package() -> None:
    bare = {f.parent for f in MODULES if not (f.parent / "__init__.py").is_file()}
    assert not bare


def test_every_file_of_the_packages_ships() -> None:
    patterns = ["*.py", *SETUPTOOLS["package-data"]["*"]]
    forgotten = [f for f in PACKAGE_FILES if not any(map(f.match, patterns))]
    assert not forgotten


def test_specs_and_spaces_are_found_as_package_data() -> None:
    zoo = {f.stem for f in (REPO / "specs").glob("*.yaml")}
    assert zoo == set(blockforge.list_specs())


def test_the_version_is_written_once() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "blockforge.__version__"}
    assert metadata.version("blockforge") == blockforge.__version__


def test_changelog_has_the_version() -> None:
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{blockforge.__version__}]" in text or "## [Unreleased]" in text


def test_constraints_pin_every_dependency() -> None:
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    pins = {requirement_name(line) for line in lines}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + [d for group in extras.values() for d in group]
    names = {requirement_name(d) for d in wanted} - {"blockforge", "triton"}  # triton: see constraints.txt
    assert names <= pins, names - pins
    assert not [line for line in lines if "==" not in line or "+" in line], "exact versions, of nobody's own build"


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    """`.ci/run` tests with constraints-lowest.txt, so that what pyproject.toml promises is true."""
    lines = (REPO / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [d for name, group in extras.items() if name not in ("all", "dev") for d in group]
    wanted = [d.partition(";")[0].strip() for d in (*PROJECT["project"]["dependencies"], *wanted)]
    assert not [d for d in wanted if ">=" not in d and requirement_name(d) != "blockforge"], "a lowest version each"
    floors = {requirement_name(d): d.partition(">=")[2].partition(",")[0] for d in wanted if ">=" in d}
    floors.pop("torch")  # see the file
    assert {requirement_name(line): line.partition("==")[2] for line in lines if "==" in line} == floors


def test_the_short_suite_names_tests_that_there_are() -> None:
    lines = (REPO / ".ci" / "short-suite.txt").read_text(encoding="utf-8").splitlines()
    named = [line.partition("#")[0].strip() for line in lines]
    for file, _, test in (name.partition("::") for name in named if name):
        text = (REPO / file).read_text(encoding="utf-8")
        assert not test or f"def {test.partition('[')[0]}(" in text, f"{file} has no {test}"


def requirement_name(requirement: str) -> str:
    """`optuna>=5,<6` -> `optuna`."""
    end = next((i for i, c in enumerate(requirement) if c in "[<>=;! "), len(requirement))
    return requirement[:end].lower().replace("_", "-")


def test_every_dependency_is_imported() -> None:
    used = {name.partition(".")[0] for file in MODULES for name, _ in imported(file)}
    declared = {requirement_name(d) for d in PROJECT["project"]["dependencies"]}
    assert not {"yaml" if name == "pyyaml" else name for name in declared} - used


# --- one tree


def run(code: str, cwd: Path, *path: Path) -> str:
    """What a fresh interpreter prints that runs `code` in `cwd`."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd, env=env)
    return done.stdout


@pytest.mark.parametrize("name", LINKED)
def test_packages_at_the_top_are_linked_into_the_package(name: str) -> None:
    assert (REPO / "blockforge" / name).readlink() == Path("..", name), "relative, so that a clone may move"


@pytest.mark.parametrize("links", [True, False])
def test_a_clone_that_is_not_installed_runs_its_own_code(links: bool, tmp_path: Path) -> None:
    """Also where links came out as text, as on Windows, and whatever other clone is installed."""
    (tmp_path / "blockforge").mkdir()
    for file in (*(REPO / "blockforge").iterdir(), *(REPO / name for name in LINKED)):
        place = tmp_path / file.relative_to(REPO)
        if not file.is_symlink():
            place.symlink_to(file)
        elif links:
            place.symlink_to(file.readlink())
        else:
            place.write_text(str(file.readlink()))
    modules = "[m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'blockforge']"
    code = f"import blockforge as bf, sys; bf.compile('smt_t'); bf.search.list_spaces(); print(*{modules}, sep='\\n')"
    files = run(code, tmp_path).split()
    assert len(files) > 50
    assert not [f for f in files if tmp_path not in Path(f).parents]


def test_mixed_trees_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"^two trees are mixed: blockforge\.specs is in .*, blockforge in .*pip$"):
        at_home("blockforge.specs", str(tmp_path / "specs" / "__init__.py"))


def tree(root: Path, linked: Path | None = None) -> Path:
    """A clone in small, with the links of a clone; its package."""
    for name in ("blockforge", "specs"):
        (root / name).mkdir(parents=True)
        init = root / name / "__init__.py"
        init.touch() if linked is None else init.symlink_to(linked / name / "__init__.py")
    (root / "blockforge" / "specs").symlink_to("../specs")
    return root / "blockforge"


def test_a_linked_folder_of_another_tree_is_refused_and_linked_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(package: Path) -> bool:
        monkeypatch.setattr(blockforge, "__path__", [str(package)])
        monkeypatch.setattr(blockforge, "__file__", str(package / "__init__.py"))
        return at_home("blockforge.specs", str(package / "specs" / "__init__.py"))

    own = tree(tmp_path / "own")
    assert runs(own)
    assert runs(tree(tmp_path / "installed", linked=own.parent)), "an installer that links each file"
    (tmp_path / "whole").symlink_to(own.parent)
    assert runs(tmp_path / "whole" / "blockforge")
    mixed = tree(tmp_path / "mixed")
    (mixed / "specs").unlink()
    (mixed / "specs").symlink_to(own.parent / "specs")
    with pytest.raises(
        ImportError, match=r"two trees are mixed: blockforge.specs is in .*/own, blockforge in .*/mixed/"
    ):
        runs(mixed)


def test_short_names_are_other_peoples(tmp_path: Path) -> None:
    """Hugging Face has a package `kernels`, which transformers imports if it is there."""
    for name in LINKED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("from .inside import ours")
        (tmp_path / name / "inside.py").write_text("ours = False")
    imports = f"import {', '.join(LINKED)}\nimport blockforge.kernels, blockforge.specs"
    shown = f"print({', '.join(f'{n}.__file__, {n}.ours' for n in LINKED)}, blockforge.kernels.backend.__module__)"
    others = [word for name in LINKED for word in (str(tmp_path / name / "__init__.py"), "False")]
    assert run(f"{imports}\n{shown}", REPO, tmp_path).split() == [*others, "blockforge.kernels.backends"]


@pytest.mark.parametrize("name", LINKED)
def test_short_names_that_nobody_has_are_refused(name: str) -> None:
    code = f"try:\n    import {name}\nexcept ModuleNotFoundError as e:\n    print(e)"
    assert run(code, REPO, REPO) == f"no package is named '{name}'; BlockForge's is blockforge.{name}\n"


def test_only_the_long_names_are_installed(tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print(*map(find_spec, {LINKED}), find_spec('blockforge').name)"
    assert run(code, tmp_path).split() == ["None", "None", "None", "blockforge"]


# --- what is imported


HEAVY = {"optuna", "triton", "matplotlib"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    return set(run(code, REPO).split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import blockforge", {*HEAVY, "torch", "pydantic", "networkx"}),
        ("import blockforge.spec", {*HEAVY, "torch", "networkx"}),
        ("import blockforge.errors, blockforge.units", {*HEAVY, "torch", "pydantic", "networkx"}),
        ("import blockforge as bf; bf.compile('smt_t')", HEAVY),
    ],
)
def test_imports_are_as_light_as_promised(statement: str, absent: set[str]) -> None:
    assert not loaded_by(statement) & absent


LEVELS = (
    ("described", "errors", "interrupts", "locks", "notes", "one_tree", "optimizers", "torch_private"),
    ("console", "extras", "files", "plugins", "units"),
    ("capacity", "definitions", "figures", "kernels", "provenance", "spec", "specs", "trackers"),
    ("blocks", "doctor"),
    ("compiler",),
    ("ablation", "draw", "eject", "export", "schema", "weights"),
    ("saving",),
    ("api",),
    ("integrations", "train"),
    ("analyze", "measure", "timm"),
    ("search",),
    ("swapping",),
    ("cli", "testing"),
    ("__main__",),
)
"""The folders and files of `blockforge`, from the ground up. Each imports only those below it, wherever the import
stands; `blockforge` itself, the front door, may be asked by all, and names of types may be read from anywhere."""
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
HOME_OF = {"optuna": ("search",), "networkx": ("compiler", "draw")}
"""A library -> the only rooms that may import it."""
WITHOUT_TORCH = (
    "console",
    "definitions",
    "described",
    "draw",
    "errors",
    "files",
    "interrupts",
    "notes",
    "plugins",
    "provenance",
    "spec",
    "specs",
    "units",
)


def room(module: str) -> str:
    """`blockforge.spec.load` -> `spec`; "" for what the front door itself gives."""
    name = f"{module}..".split(".")[1]
    return name if (REPO / "blockforge" / name).is_dir() or (REPO / "blockforge" / f"{name}.py").is_file() else ""


@functools.cache
def imports() -> list[tuple[str, str]]:
    """Who imports what, of every module but the front door. Not read before a test asks: every worker collects all."""
    front = REPO / "blockforge" / "__init__.py"
    by_module = {module_name(file): imported(file) for file in MODULES if file != front}
    return [(module, name) for module, names in by_module.items() for name, _ in names]


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Not by imports inside functions either."""
    arrows = {(i.user, i.used) for i in structure.imports(structure.modules(REPO))}
    assert len(arrows) > 1000
    assert not structure.cycles(arrows)


def test_lazy_imports_are_seen_and_names_of_types_are_not(tmp_path: Path) -> None:
    (tmp_path / "blockforge").mkdir()
    texts = {
        "a": "from blockforge import b",
        "b": "def f():\n    import blockforge.c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import blockforge.d\nimport blockforge.a",
        "d": "class D:\n    from blockforge.c import x",
    }
    for name, text in texts.items():
        (tmp_path / "blockforge" / f"{name}.py").write_text(text)
    found = list(structure.imports(structure.modules(tmp_path)))
    short = {(i.user[-1], i.used[-1], i.lazy) for i in found}
    assert short == {("a", "b", False), ("b", "c", True), ("c", "a", False), ("d", "c", False)}
    assert structure.cycles({(i.user, i.used) for i in found}) == [{f"blockforge.{name}" for name in "abc"}]
    assert not structure.cycles({(i.user, i.used) for i in found if not i.lazy})


def test_every_folder_has_a_level() -> None:
    assert {room(module_name(file)) for file in MODULES} - {""} == set(LEVEL)


@pytest.mark.parametrize("name", LEVEL)
def test_imports_point_down(name: str) -> None:
    wrong = [
        f"{user} imports {used}"
        for user, used in imports()
        if room(user) == name and used.startswith("blockforge.") and room(used) not in ("", name)
        if LEVEL[room(used)] >= LEVEL[name]
    ]
    assert not wrong, "see LEVELS; an object may offer what a room above has through the front door, `blockforge`"


@pytest.mark.parametrize("library", HOME_OF)
def test_a_library_has_its_rooms(library: str) -> None:
    users = {room(user) for user, used in imports() if used.partition(".")[0] == library}
    assert users <= set(HOME_OF[library])


def test_what_needs_no_tensors_needs_no_torch() -> None:
    wrong = [user for user, used in imports() if used.partition(".")[0] == "torch" and room(user) in WITHOUT_TORCH]
    assert not wrong


def test_the_map_in_the_docs_is_the_order_of_imports() -> None:
    lines = (REPO / "docs" / "design.md").read_text(encoding="utf-8").splitlines()
    rows = [re.findall(r"`([a-z_]+)`", line.split("|")[1]) for line in lines if line.startswith("| `")]
    assert [row for row in rows if set(row) & set(LEVEL)] == [list(names) for names in reversed(LEVELS)]


def test_places_that_the_guide_names_exist() -> None:
    """Up to the first part in capitals, which stands for a name to be chosen."""
    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = re.findall(r"`([\w.-]+/[\w./-]*)`", text)
    fixed = {place: re.split(r"[A-Z]+", place)[0] for place in places}
    assert len(fixed) > 20
    assert not [place for place, start in fixed.items() if not (REPO / start).exists()]


def test_linked_packages_are_imported_by_their_long_names() -> None:
    """`import search` is refused by `blockforge.one_tree`, or gives somebody else's."""
    wrong = [
        f"{file.relative_to(REPO)} imports {name}"
        for file in MODULES + OTHER_SOURCES
        for name, _ in imported(file)
        if name.partition(".")[0] in LINKED
    ]
    assert not wrong


# --- what no file may hold


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project."""
    wanted = (".md", ".toml", ".txt", "Makefile", ".gitignore")
    top = [f for f in REPO.iterdir() if f.name.endswith((*wanted, "setup.py"))]
    folders = [REPO / name for name in (*HOMES.values(), "tests", "docs", ".ci")]
    below = [f for folder in folders for f in sorted(folder.rglob("*")) if f.is_file()]
    for file in (f for f in top + below if "__pycache__" not in f.parts):
        try:
            yield file, file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # tensors and pictures


def test_no_file_names_a_machine_or_a_registry() -> None:
    folders = [f"/{name}/" for name in ("work", "root", "farm", "Users")]
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("pytorch", "org/whl"))]
    options = ["-".join(parts) for parts in (("index", "url"), ("find", "links"))]
    found = [
        f"{file.relative_to(REPO)}: {text}"
        for file, content in texts()
        for text in folders + hosts + options
        if text in content
    ]
    assert not found


def test_no_source_file_is_too_long() -> None:
    lengths = {f: len(f.read_text(encoding="utf-8").splitlines()) for f in MODULES + OTHER_SOURCES}
    long = {str(f.relative_to(REPO)): n for f, n in lengths.items() if n > 400}
    assert not long
