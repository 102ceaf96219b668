"""Which backend runs an operator, and why."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

import blockforge.kernels
from blockforge.kernels import KernelError, Operator, backends, operators
from blockforge.kernels.backends import anywhere, needs_numba, needs_triton
from blockforge.kernels.selective_scan import OPERATOR

X = torch.zeros(1)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    """One that has all backends; numba is installed."""
    monkeypatch.setattr(backends, "_installed", lambda module: True)
    monkeypatch.delenv("BLOCKFORGE_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return Operator("selective_scan", triton=needs_triton, numba=needs_numba, torch=anywhere, reference=anywhere)


def test_auto_takes_the_first_that_runs(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operator.choose(X) == ("numba", "not triton: triton needs a CUDA device, the tensor is on cpu")
    assert operator.choose(X.to("meta")).backend == "torch"
    monkeypatch.setattr(backends, "_installed", lambda module: False)
    choice = operator.choose(X)
    assert choice.backend == "torch"
    assert "not numba: numba is not installed (pip install 'blockforge[jit]')" in choice.why


def test_auto_never_takes_the_interpreter(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert operator.choose(X).backend == "numba"
    assert operator.choose(X, "triton").backend == "triton"


def test_argument_over_context_over_environment(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKFORGE_KERNELS", "reference")
    assert operator.choose(X) == ("reference", "asked for by BLOCKFORGE_KERNELS")
    with blockforge.kernels.backend("torch"):
        assert operator.choose(X) == ("torch", "asked for by backend()")
        assert operator.choose(X, "numba") == ("numba", "asked for by argument")
        with blockforge.kernels.backend("auto"):
            assert operator.choose(X).backend == "numba"
    assert operator.choose(X).backend == "reference"


def test_the_context_is_left_after_an_error(operator: Operator) -> None:
    with pytest.raises(RuntimeError, match="inside"), blockforge.kernels.backend("torch"):
        raise RuntimeError("inside")
    assert operator.choose(X).backend == "numba"


def test_what_cannot_run_says_why(operator: Operator) -> None:
    message = r"the triton backend \(asked for by argument\) cannot run selective_scan here: triton needs a CUDA device"
    with pytest.raises(KernelError, match=message) as caught:
        operator.choose(X, "triton")
    assert "what can: auto, numba, torch, reference" in str(caught.value)
    with blockforge.kernels.backend("triton"), pytest.raises(KernelError, match=r"asked for by backend\(\)"):
        operator.choose(X)


def test_unknown_names(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        KernelError, match=r"argument: there is no backend 'tritn' of kernels\n  hint: did you mean 'triton'"
    ):
        operator.choose(X, "tritn")
    with (
        pytest.raises(KernelError, match=r"backend\(\): there is no backend 'cuda'"),
        blockforge.kernels.backend("cuda"),
    ):
        pass
    monkeypatch.setenv("BLOCKFORGE_KERNELS", "Torch")
    with pytest.raises(KernelError, match=r"BLOCKFORGE_KERNELS: there is no backend 'Torch'.*\n.*did you mean 'torch'"):
        operator.choose(X)


def test_a_wish_for_all_operators_spares_those_that_lack_it() -> None:
    operator = Operator("selective_scan", torch=anywhere, reference=anywhere)
    with blockforge.kernels.backend("numba"):
        assert operator.choose(X).backend == "torch"
    with pytest.raises(KernelError, match="selective_scan has no 'numba' backend"):
        operator.choose(X, "numba")


def test_facts_reach_the_refusals(operator: Operator) -> None:
    assert OPERATOR.choose(X, double=True).backend == "torch"
    with pytest.raises(KernelError, match="computes in float32"):
        OPERATOR.choose(X, "numba", double=True)


def test_the_choice_is_logged(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "blockforge.kernels"):
        operator.pick(X, "torch")
    assert "selective_scan: torch (asked for by argument)" in caplog.text


def test_every_operator_runs_everywhere() -> None:
    found = operators()
    assert {"selective_scan", "cross_scan", "ssd"} <= set(found)
    for name, operator in found.items():
        assert operator.name == name
        assert {"torch", "reference"} <= set(operator.backends), name
        assert operator.choose(X.to("meta")).backend == "torch"


def test_importing_kernels_compiles_nothing() -> None:
    code = "import blockforge.kernels as k, sys; k.operators(); print({'numba', 'triton'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
