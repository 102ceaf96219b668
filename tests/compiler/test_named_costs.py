"""Costs are of a named backend: the same on every machine, whatever is installed or asked for there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

import blockforge as bf
from blockforge.cli import main
from blockforge.kernels import backend
from blockforge.kernels.costs import CostError

SPECS = bf.list_specs()
FIGURES = """
    import json, sys

    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {hidden}:
                raise ModuleNotFoundError(name, name=name)

    sys.meta_path.insert(0, Hidden())
    import blockforge as bf

    archs = [bf.compile(name) for name in {specs}]
    print(json.dumps([[a.activation_bytes, a.on("torch").activation_bytes, a.hash] for a in archs]))
"""


def figures(specs: list[str], hidden: tuple[str, ...] = (), **environment: str) -> list[list[object]]:
    """What a fresh process says of some specs without some packages and with some variables set."""
    code = textwrap.dedent(FIGURES).format(hidden=hidden, specs=specs)
    given = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    found: list[list[object]] = json.loads(done.stdout)
    return found


def test_costs_are_the_same_on_every_machine() -> None:
    here = [[a.activation_bytes, a.on("torch").activation_bytes, a.hash] for a in map(bf.compile, SPECS)]
    assert figures(SPECS, hidden=("numba", "llvmlite", "triton")) == here
    assert figures(SPECS[::3], BLOCKFORGE_KERNELS="torch", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="7") == here[::3]
    assert figures(SPECS[1::3], BLOCKFORGE_KERNELS="reference", TRITON_INTERPRET="1") == here[1::3]


@pytest.mark.parametrize("asked", ["torch", "numba", "reference"])
def test_what_operators_are_asked_to_run_on_does_not_count(asked: str) -> None:
    plain = bf.compile("sparx_mamba_t").activation_bytes
    with backend(asked):
        assert bf.compile("sparx_mamba_t", {"name": asked}).activation_bytes == plain


def test_another_backend_is_asked_for_by_name() -> None:
    numba, torch = (bf.compile("sparx_mamba_t", backend=name) for name in ("numba", "torch"))
    assert numba.activation_bytes < 0.6 * torch.activation_bytes
    assert (numba.backend, torch.backend) == ("numba", "torch")
    assert numba.on("torch").activation_bytes == torch.activation_bytes
    assert torch.on("numba").activation_bytes == numba.activation_bytes
    assert numba.hash == torch.hash
    assert bf.Architecture.from_json(torch.to_json()).activation_bytes == torch.activation_bytes


def test_a_backend_without_costs_is_refused() -> None:
    with pytest.raises(CostError, match="of the backend 'tortch'\n  hint: did you mean 'torch'"):
        bf.compile("smt_t", backend="tortch")
    with pytest.raises(CostError, match="known: numba, torch"):
        bf.compile("smt_t").on("auto")


def test_commands_name_the_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "sparx_mamba_t", "--no-layers", "--backend", "torch"]) == 0
    shown = capsys.readouterr().out
    assert "on the torch backend" in " ".join(shown.split())
    assert main(["show", "sparx_mamba_t", "--backend", "cuda"]) == 1
    assert "error: costs are not known of the backend 'cuda'" in capsys.readouterr().err
    assert main(["zoo"]) == 0
    assert "on the numba backend" in " ".join(capsys.readouterr().out.split())
