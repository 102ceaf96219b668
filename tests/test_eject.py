"""Ejected files need nothing of blockforge and compute the same, in every family."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from safetensors.torch import save_file
from test_export import SMALL
from torch import nn

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.mixers.pooling import Pooling
from blockforge.cli import main
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.eject import EjectError, check, eject
from blockforge.eject.layout import WIDTH, layout
from blockforge.eject.recorded import recorded
from blockforge.eject.rewriting import rewritten
from blockforge.kernels import backend
from blockforge.testing.strategies import specs

DATA = Path(__file__).parent / "data" / "plugin"
TOLERANCE_64 = 1e-9
"""Of outputs in float64, of the largest."""
RUN = """
import importlib.util, json, sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("blockforge", "pydantic", "networkx", "triton", "numba"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import torch
from safetensors.torch import load_file, safe_open
torch.set_num_threads(1)
found = {}
for file in sorted(Path(sys.argv[1]).glob("*.py")):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    tensors = load_file(file.with_suffix(".safetensors"))
    x, y = tensors.pop("__x"), tensors.pop("__y")
    model = module.Backbone().to(x.dtype).eval()
    model.load_state_dict(tensors)
    with torch.inference_mode():
        got = model(x)
        maps = [list(m.shape) for m in model.forward_features(x)]
    found[file.stem] = [((got - y).abs().max() / y.abs().max()).item(), maps]
print(json.dumps(found))
"""


def write(model: Backbone, folder: Path, name: str, dtype: torch.dtype = torch.float32) -> None:
    """The ejected file, and beside it weights, an image and what the model makes of it, all in one type."""
    (folder / f"{name}.py").write_text(eject(model), encoding="utf-8")
    size = model.arch.plan.input
    x = torch.randn(2 if size.size[0] < 128 else 1, size.channels, *size.size, dtype=dtype)
    with torch.inference_mode(), backend("torch"):
        y = model.to(dtype).eval()(x)
    assert y.isfinite().all()
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file({**tensors, "__x": x, "__y": y}, folder / f"{name}.safetensors")


def run_alone(folder: Path) -> dict[str, Any]:
    """Every file of a folder, run where blockforge cannot be imported."""
    argv = [sys.executable, "-W", "error", "-c", RUN, str(folder)]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_family_runs_alone(tmp_path: Path) -> None:
    models = {name: bf.build(name, overrides, seed=0) for name, overrides in SMALL.items()}
    for name, model in models.items():
        write(model, tmp_path, name)
    found = run_alone(tmp_path)
    assert set(found) == set(SMALL)
    for name, (error, maps) in found.items():
        assert error <= check.TOLERANCE, name
        assert [m[1] for m in maps] == models[name].feature_info.channels(), name


@pytest.mark.slow
def test_every_spec_of_the_zoo_runs_alone(tmp_path: Path) -> None:
    """In float64: at first weights, with the statistics that norms begin with, float32 rounds some outputs by parts of
    ten thousand (ghostnet_100's, which are millions), in the source as in the ejected file."""
    names = bf.list_specs()
    errors = {}
    for name in names:  # one at a time: their weights together take gigabytes
        write(bf.build(name, seed=0), tmp_path, name, torch.float64)
        errors[name] = run_alone(tmp_path)[name][0]
        (tmp_path / f"{name}.safetensors").unlink()
        (tmp_path / f"{name}.py").unlink()
    assert {name: e for name, e in errors.items() if not e <= TOLERANCE_64} == {}


@pytest.mark.parametrize("name", ["smt_t", "swin_tiny", "mambavision_t"])
def test_equal_seeds_give_equal_weights(name: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    model = bf.build(name, SMALL[name], seed=3)
    file.write_text(eject(model), encoding="utf-8")
    torch.manual_seed(3)
    made = check._loaded(file).Backbone()
    theirs = made.state_dict()
    assert set(theirs) == set(model.state_dict())
    assert all(torch.equal(theirs[k], v) for k, v in model.state_dict().items())


def test_a_new_classifier_and_drop_path_are_arguments(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(eject(bf.build("smt_t", SMALL["smt_t"], seed=0)), encoding="utf-8")
    made = check._loaded(file).Backbone(num_classes=7, drop_path_rate=0.5).train()
    rates = [m.rate for m in made.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == 0.5
    y = made(torch.randn(2, 3, 64, 64))
    assert y.shape == (2, 7)
    y.sum().backward()
    assert all(p.grad is not None for p in made.parameters())


@pytest.mark.parametrize("block", ["pool_mixer", "asking"])
def test_a_plugin_s_block_is_written_out(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its module is made with the block: then the block's parameters stand in its place."""
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    for name in ("pool_mixer", "asking"):
        registry.load_plugin(DATA / f"{name}.py")
    write(bf.build(DATA / "pool_mixer.yaml", {"blocks.pool.0": {"op": block}}, seed=0), tmp_path, "net")
    assert f"\nclass {block.title().replace('_', '')}(nn.Module):\n" in (tmp_path / "net.py").read_text()
    assert run_alone(tmp_path)["net"][0] <= check.TOLERANCE


class Unwritten(nn.Module):
    """A module that is made with an object."""

    def __init__(self, thing: object) -> None:
        super().__init__()


def test_a_module_without_literals_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bf.build("poolformer_s12", SMALL["poolformer_s12"])
    monkeypatch.setattr(Pooling, "build", lambda *args: Unwritten(object()))
    with pytest.raises(EjectError, match=r"stages\.0\.layers\.0 is made with a value that has no literal, thing"):
        eject(model)


def test_a_network_that_gives_zeros_is_compared(tmp_path: Path) -> None:
    model = bf.build("resnet50", SMALL["resnet50"], seed=0)
    torch.nn.init.zeros_(model.get_classifier().weight)
    assert check.write_ejected(model, tmp_path / "net.py").error == 0


@settings(max_examples=6)
@given(specs())
def test_any_network_is_written_out(tree: dict[str, Any]) -> None:
    try:
        model = bf.build(tree, seed=0)
    except bf.SpecError:  # maps that cannot meet
        reject()
    with tempfile.TemporaryDirectory() as folder:
        assert check.write_ejected(model, Path(folder, "net.py")).error <= check.TOLERANCE


def test_the_file_holds_what_the_network_uses_and_no_more() -> None:
    text = eject(bf.build("smt_t", SMALL["smt_t"], seed=0))
    defined = [n.name for n in ast.parse(text).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    assert {"SAM", "ConvMlp", "Attention", "Branch", "SamLayer", "MsaLayer", "Backbone"} <= set(defined)
    assert not {"WindowAttention", "WindowIn", "DMCA", "LSMM", "untouched", "activate", "mixed_conv"} & set(defined)
    assert "import blockforge" not in text
    assert "from blockforge" not in text
    assert "cut_windows" not in text
    assert len(text.splitlines()) < 600
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("name", ["smt_t", "sparx_mamba_t", "swin_tiny"])
def test_the_file_is_formatted(name: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(eject(bf.build(name, SMALL[name], seed=0)), encoding="utf-8")
    config = str(Path(__file__).parents[1] / "pyproject.toml")
    for command in (["format", "--diff"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", config, "--no-cache", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_reading_the_network_leaves_it_as_it_was() -> None:
    model = bf.build("smt_t", SMALL["smt_t"], seed=0)
    profiler, state = sys.getprofile(), torch.get_rng_state()
    recorded(model.arch)
    assert sys.getprofile() is profiler
    assert torch.equal(torch.get_rng_state(), state)


def test_long_expressions_break_as_ruff_breaks_them() -> None:
    a, b = "a" * 60, "b" * 60
    assert layout(f"    x = f({a}, {b})") == ["    x = f(", f"        {a},", f"        {b},", "    )"]
    assert layout(f"    x = f({a[5:]}, {b[5:]})") == ["    x = f(", f"        {a[5:]}, {b[5:]}", "    )"]
    assert layout(f"x = [{a}, {b}]") == ["x = [", f"    {a},", f"    {b},", "]"]
    assert layout(f"f([({a}, 1), {b}])") == ["f(", "    [", f"        ({a}, 1),", f"        {b},", "    ]", ")"]


@pytest.mark.parametrize(
    ("written", "rewritten_as"),
    [
        ("y = activate(self.act, f(x), untouched(self.fc, Linear))", "y = self.act(f(x))"),
        ("y = a if untouched(x) else b[0]", "y = b[0]"),
        ("y = x.add_(self.eps or 0.0)", "y = x.add_(self.eps or 0.0)"),
        ("y = f(not torch.jit.is_tracing() and (a or is_symbolic(x)) and b)", "y = f(a and b)"),
        ("y = (a or untouched(x)) and (b or c)", "y = a and (b or c)"),
        ("y = a and (b or c or untouched(x))", "y = a and (b or c)"),
        ("if all(untouched(c) for c in cs) or a:\n    return 1", "if a:\n    return 1"),
        ("if untouched(x):\n    return 1  # fast\nelse:\n    # plain\n    y = 2", "y = 2"),
        ("own = untouched(x)\ny = g(x, own)", "y = g(x, False)"),
        ("own = untouched(x)\nif a:\n    own = a", "own = False\nif a:\n    own = a"),
    ],
)
def test_questions_about_speed_are_answered(written: str, rewritten_as: str) -> None:
    head = "    def f(self, x):\n"
    assert rewritten(head + textwrap.indent(written, " " * 8)) == head + textwrap.indent(rewritten_as, " " * 8)


# --- the command


def test_the_command_writes_a_file_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.py"
    sets = [a for k, v in SMALL["convnext_t"].items() for a in ("--set", f"{k}={v}")]
    assert main(["eject", "convnext_t", "-o", str(file), *sets, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["error"] <= check.TOLERANCE
    assert report["lines"] == len(file.read_text().splitlines())
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    params = bf.compile("convnext_t", SMALL["convnext_t"]).params
    assert done.stdout == f"{params:,} parameters, (1, 3, 64, 64) -> (1, 1000)\n"


def test_a_file_that_computes_something_else_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = check.eject
    monkeypatch.setattr(check, "eject", lambda model: right(model).replace("x = self.stem(x)", "x = 1 + self.stem(x)"))
    sets = [a for k, v in SMALL["resnet50"].items() for a in ("--set", f"{k}={v}")]
    assert main(["eject", "resnet50", "-o", str(tmp_path / "net.py"), *sets]) == 1
    assert "its outputs differ from the model's" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-o", "{tmp}/no/net.py"], "there is no folder"),
        (["-o", "{tmp}"], "it is a folder"),
        (["-o", "{tmp}/torch.py"], "would stand for the module 'torch'"),
    ],
)
def test_mistakes_are_named(argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eject", "smt_t", *(a.format(tmp=tmp_path) for a in argv)]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
