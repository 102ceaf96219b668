"""Blocks that are written in YAML."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.defined import Defined

NAMES = [
    name for name, cls in registry.blocks("mixer", "ffn", "stem", "downsample").items() if issubclass(cls, Defined)
]


def spec(op: Any) -> dict[str, Any]:
    return {
        "blockforge": 1, "name": "net", "input": {"size": 32}, "num_classes": 10, "blocks": {"b": [op]},
        "stem": {"op": "patch_embed", "patch": 4}, "stages": [{"dim": 8, "depth": 1, "layers": "b"}],
        "head": "classifier",
    }  # fmt: skip


def test_they_are_what_is_packaged() -> None:
    folder = Path(bf.__file__).parent / "definitions" / "blocks"
    assert sorted(NAMES) == sorted(file.stem for file in folder.glob("*.yaml"))
    assert "convnext" in NAMES


@pytest.mark.parametrize(
    ("op", "path", "message"),
    [
        ({"op": "convnext", "kernel_size": 4}, "blocks.b[0].kernel_size", "kernel size 4 is even"),
        ({"op": "convnext", "kernels": 4}, "blocks.b[0].kernels", "has no parameter 'kernels'"),
        ({"op": "convnext", "mlp_ratio": 0.01}, "blocks.b[0].mlp_ratio", "not 0"),
        ({"op": "convnext", "inner_norm": {"op": "group_norm", "num_groups": 3}}, "blocks.b[0].inner_norm", "3"),
    ],
)
def test_a_mistake_is_told_at_the_parameter_that_makes_it(op: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(bf.SpecError, match=message) as e:
        bf.compile(spec(op))
    (found,) = e.value.diagnostics
    assert bf.errors.format_path(found.path).startswith(path)


def test_a_block_of_a_block_is_one_part() -> None:
    model = bf.build(spec({"op": ["convnext", "layer_norm"], "norm": "none"}))
    assert "stages.0.layers.0.chain.op.convnext.dwconv.weight" in model.state_dict()
    assert isinstance(registry.get("convnext")().build(Shape(7, 7, 8)), Composed)


def test_an_instance_is_unpickled_where_nothing_is_loaded_yet(tmp_path: Path) -> None:
    op = registry.make("convnext", {"kernel_size": 5}, "mixer")
    (tmp_path / "op").write_bytes(pickle.dumps(op))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'op')!r}, 'rb')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.strip() == str(op)
