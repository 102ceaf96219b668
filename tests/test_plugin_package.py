"""A package of somebody else that brings one of each kind of thing, and what is told of one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.samplers import BaseSampler

from blockforge.errors import PluginError, SearchError
from blockforge.plugins import REGISTRIES, Registry, YamlFiles, load_plugin
from blockforge.search.samplers.registry import FACTORIES, make_sampler

DATA = Path(__file__).parent / "data" / "plugin"
ENTRIES = {
    "blocks": "extras.pool_mixer",
    "connect": "extras.things",
    "weights": "extras.things",
    "data": "extras.things",
    "objectives": "extras.things",
    "samplers": "extras.things",
    "recipes": "extras.recipes",
    "specs": "extras.specs",
    "spaces": "extras.spaces",
}
RULE = "{rule: first, aggregate: {op: sum}}"
USES = """
import json
from pathlib import Path

import blockforge as bf
from blockforge.compiler.graph.connect import RULES
from blockforge.provenance import source_in
from blockforge.saving import spec_text
from blockforge.search import list_spaces, load_space
from blockforge.train import list_recipes, load_recipe, open_data
from blockforge.train.identity import identity
from blockforge.weights.family import FAMILIES, family_of
from blockforge.weights.official import convert

network = bf.build("extra_net", {"stages.1.connect": %(rule)r}, num_classes=2)
data, recipe = open_data("halves"), load_recipe("extra_recipe")
state = {f"{name}_extra": value for name, value in network.state_dict().items()}
converted = convert(network.state_dict(), state, family_of(state))
known = identity(network.arch, data, recipe, 0, None, 1)
print(json.dumps({
    "text": spec_text(network.spec).splitlines()[:2],
    "zoo": "extra_net" in bf.list_specs("extra*"),
    "space": "extra_space" in list_spaces() and load_space("extra_space").name,
    "recipe": "extra_recipe" in list_recipes() and recipe.epochs,
    "data": len(data.train),
    "family": source_in(FAMILIES, family_of(state).name).where(),
    "tensors": len(converted) == len(state),
    "run": sorted(known["plugins"]),
    "score": bf.search(
        "tiny", objectives=["layers:factor=10"], sampler="dice", trials=2, seed=0, out="study"
    ).best.score %% 10,
}))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages with one distribution, as an installer leaves it."""
    package, spec = tmp_path / "extras", (DATA / "pool_mixer.yaml").read_text(encoding="utf-8")
    for name in ("", "recipes", "specs", "spaces"):
        (package / name).mkdir(exist_ok=True)
        (package / name / "__init__.py").touch()
    for name in ("pool_mixer.py", "things.py"):
        (package / name).write_bytes((DATA / name).read_bytes())
    (package / "recipes" / "extra_recipe.yaml").write_text("epochs: 3\nbatch_size: 8\nlr: 0.01\n")
    (package / "specs" / "extra_net.yaml").write_text(spec.replace("name: pool_mixer", "name: extra_net"))
    space = spec.replace("name: pool_mixer", "name: extra_space").replace("depth: 2", "depth: {$int: [1, 3]}")
    (package / "spaces" / "extra_space.yaml").write_text(space)
    about = tmp_path / "bf_extras-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bf-extras\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("".join(f"[blockforge.{k}]\nextras = {v}\n" for k, v in ENTRIES.items()))
    return tmp_path


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=site)


def command(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(site, "-c", "import sys; from blockforge.cli import main; sys.exit(main())", *arguments)


def test_an_installed_package_brings_one_of_each(site: Path) -> None:
    done = run(site, "-c", USES % {"rule": {"rule": "first", "aggregate": {"op": "sum"}}})
    assert not done.returncode, done.stderr
    assert json.loads(done.stdout) == {
        "text": ["# needs package bf-extras for first, pool_mixer", "blockforge: 1"],
        "zoo": True,
        "space": "extra_space",
        "recipe": 3,
        "data": 12,
        "family": "package bf-extras",
        "tensors": True,
        "run": ["pool_mixer.py", "things.py"],
        "score": 0.0,
    }
    (site / "bf_extras-1.0.dist-info" / "entry_points.txt").write_text("")
    missing = command(site, "worker", "--storage", "study")
    assert "uses objectives or the sampler of bf-extras\n  hint: pip install bf-extras" in missing.stderr


def test_a_package_that_fails_is_named(site: Path) -> None:
    (site / "extras" / "specs" / "__init__.py").write_text("import a_module_that_is_not_there\n")
    done = command(site, "zoo", "deit*")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "plugin bf-extras failed at its entry point 'extras = extras.specs' (blockforge.specs)" in done.stderr
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'\n  hint: mend it, or pip" in done.stderr


def not_today() -> BaseSampler:
    raise RuntimeError("not today")


def test_what_a_plugin_makes_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, factory in {"three": lambda: 3, "leaving": sys.exit, "breaking": not_today}.items():
        monkeypatch.setitem(FACTORIES.things, name, factory)
    with pytest.raises(SearchError, match="three gives int, and no BaseSampler of Optuna's"):
        make_sampler("three", 0)
    with pytest.raises(SearchError, match="'leaving' cannot be made: SystemExit"):
        make_sampler("leaving", 0)
    with pytest.raises(SearchError, match="'breaking' cannot be made: RuntimeError: not today"):
        make_sampler("breaking", 0)


def test_a_plugin_that_exits_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "leaving_plugin.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(PluginError, match="failed: SystemExit: 0"):
        load_plugin(tmp_path / "leaving_plugin.py")


def test_a_plugin_file_serves_every_registry(site: Path) -> None:
    code = (DATA / "things.py").read_text(encoding="utf-8")
    folders = "from blockforge.spec.load import SPECS\nSPECS.add_folder(__file__[:-7] + 'extras/specs', __name__)\n"
    (site / "mine.py").write_text(code + folders)
    (site / "bf_extras-1.0.dist-info" / "entry_points.txt").write_text("[blockforge.blocks]\nb = extras.pool_mixer\n")
    done = command(site, "check", "extra_net", "--set", f"stages.1.connect={RULE}", "--plugin", "mine.py")
    assert done.stdout.startswith("extra_net: ok"), done.stderr
    done = command(site, "data", "check", "halves", "--plugin", "mine.py")
    assert "halves: 2 classes" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def things() -> Iterator[Registry[int]]:
    yield Registry("blockforge.test_things", "thing")
    del REGISTRIES["blockforge.test_things"]


def test_two_things_of_one_name_are_refused(things: Registry[int]) -> None:
    things.add("one", 1, "mine")
    things.add("one", 1, "mine")
    with pytest.raises(PluginError, match="two things are named 'one': mine and yours"):
        things.add("one", 2, "yours")


def test_a_failure_is_told_every_time(things: Registry[int], site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = "[blockforge.test_things]\nbad = no_such_module_of_ours\n"
    (site / "bf_extras-1.0.dist-info" / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(site)
    for _ in range(2):
        with pytest.raises(PluginError, match="plugin bf-extras failed at its entry point 'bad = no_such"):
            list(things)


def test_yaml_files_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: 1\n")
    (tmp_path / "b.txt").touch()
    files = YamlFiles("blockforge.test_files", "page")
    try:
        files.add_folder(tmp_path, "mine")
        assert {name: file.read_text() for name, file in files.items()} == {"a": "x: 1\n"}
        assert files.modules() == {"a": "mine"}
    finally:
        del REGISTRIES["blockforge.test_files"]
