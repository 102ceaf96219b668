"""Which code runs an operator: one mechanism for all of them.

An operator is a folder of this package. Its `__init__.py` declares what can run it, the best first:

    OPERATOR = Operator("selective_scan", triton=needs_triton, numba=needs_numba, torch=anywhere, reference=anywhere)

Each name stands for a file of the folder, `triton_impl.py`, `numba_impl.py`, `onednn_impl.py`, `torch_impl.py`,
`reference.py`, which
defines a function of the operator's name; it is imported when it is first chosen. Each value is a function that
says why the backend cannot run a tensor, or None: `refuses(x, **facts) -> str | None`. `facts` are whatever the
operator hands to `pick`, so a kernel may refuse by sizes too. The public function is then

    def selective_scan(u, ..., backend=None):
        return OPERATOR.pick(u, backend)(u, ...)

`auto` takes the first backend that does not refuse. A backend is asked for by the argument, else by
`with blockforge.kernels.backend("torch"):`, else by the environment variable BLOCKFORGE_KERNELS.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blockforge.errors import BlockforgeError, did_you_mean
from blockforge.kernels import costs
from blockforge.torch_private import constant_of_a_graph, in_transform

Refusal = Callable[..., str | None]
"""`refuses(x, **facts)`: why a backend cannot run the operator on `x`; None: it can."""

NAMES = ("auto", "triton", "numba", "onednn", "torch", "reference")
ENVIRONMENT = "BLOCKFORGE_KERNELS"
MOST_CHOICES = 4096
"""Choices that an operator remembers."""

_log = logging.getLogger(__name__)
_in_context: ContextVar[str | None] = ContextVar("blockforge_kernels_backend", default=None)


class KernelError(BlockforgeError, ValueError):
    """A backend that does not exist, or that cannot run what it was asked to run."""


class Choice(NamedTuple):
    """What runs an operator, and why."""

    backend: str
    why: str


class Operator:
    """An operator and what can run it.

    Args:
        name: of its folder, and of the function in each of its files.
        rehearsed: backends that keep other tensors for the backward pass than standard operators do. The folder's
            `meta_impl.py` keeps the same ones on the meta device, see `costs.rehearsal`.
        backends: name -> why it refuses a tensor; the best first. The last one must run everything.
    """

    def __init__(self, name: str, rehearsed: tuple[str, ...] = (), **backends: Refusal) -> None:
        assert set(backends) <= set(NAMES[1:]), backends
        self.name, self.rehearsed, self.backends = name, rehearsed, backends
        self.loaded: dict[str, Callable[..., Any]] = {}
        self.chosen: dict[tuple[Any, ...], str] = {}
        """What was chosen, for all that a choice depends on: a model asks again at every layer."""

    def pick(self, x: Tensor, backend: str | None = None, **facts: Any) -> Callable[..., Any]:
        """The function to call. `x` is the tensor that decides; only its device and type are looked at
        here, `facts` (plain numbers, strings, booleans) are handed to the backends' refusals.

        A compiled graph keeps what was chosen when it was compiled. In an exported or traced graph, and inside a
        transform of torch.func or forward-mode differentiation, it is always the standard operators, which
        alone have a rule for each of these.

        Raises: KernelError if there is no such backend, or the one asked for by name cannot run.
        """
        standard = torch.jit.is_tracing() or torch.compiler.is_exporting()
        if not (standard or torch.compiler.is_compiling()):
            standard = in_transform() or x.numel() == 0  # no image: nothing to gain, and no kernel need care
        if standard:
            return self.loaded[_load(self, "torch")]
        if x.is_meta and costs.rehearsing():
            return self.loaded[_load(self, "meta" if costs.costed() in self.rehearsed else "torch")]
        return self.loaded[_choose(self, x.device.type, x.dtype, backend, tuple(facts.items()))]

    def choose(self, x: Tensor, backend: str | None = None, **facts: Any) -> Choice:
        """What `pick` would run, and why. Raises: KernelError as `pick`."""
        wanted, by = _wanted(backend)
        return self._auto(x, by, facts) if wanted == "auto" else self._named(x, wanted, by, facts)

    def available(self, x: Tensor, **facts: Any) -> list[str]:
        """The backends that can run `x` when asked for by name, the best first."""
        return [name for name, refuses in self.backends.items() if refuses(x, **facts) is None]

    def _named(self, x: Tensor, name: str, by: str, facts: dict[str, Any]) -> Choice:
        if name not in self.backends:
            if by != "argument":  # a wish for all operators holds for those that have it
                return self._auto(x, f"{by} wants {name}, which {self.name} does not have", facts)
            known = ", ".join(("auto", *self.backends))
            raise KernelError(f"{self.name} has no '{name}' backend\n  hint: it has {known}")
        if why := self.backends[name](x, **facts):
            usable = ", ".join(("auto", *self.available(x, **facts)))
            text = f"the {name} backend (asked for by {by}) cannot run {self.name} here: {why}"
            raise KernelError(f"{text}\n  hint: what can: {usable}")
        return Choice(name, f"asked for by {by}")

    def _auto(self, x: Tensor, by: str, facts: dict[str, Any]) -> Choice:
        reasons: list[tuple[str, str]] = []
        for name, refuses in self.backends.items():
            why = refuses(x, **facts)
            if why is None and name == "triton" and not x.is_cuda:
                why = "the interpreter of triton is for tests alone"
            if why is None:
                tried = "; ".join(f"not {n}: {w}" for n, w in reasons)
                return Choice(name, tried or f"the best for {x.device.type}")
            reasons.append((name, why))
        raise AssertionError(f"nothing runs {self.name}: {reasons} ({by})")


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run every operator inside on one backend: `with blockforge.kernels.backend("torch"): model(x)`.

    An operator that has no such backend runs as with auto. `auto` undoes an outer wish.
    Raises: KernelError if no operator could have such a backend.
    """
    token = _in_context.set(_known(name, "backend()"))
    try:
        yield
    finally:
        _in_context.reset(token)


def anywhere(x: Tensor, **facts: Any) -> str | None:
    """Refuses nothing: standard operators of torch."""
    return None


def needs_numba(x: Tensor, **facts: Any) -> str | None:
    """Refuses where numba is not installed, and tensors that are not in the CPU's memory."""
    if x.device.type != "cpu":
        return f"numba runs on the CPU, the tensor is on {x.device.type}"
    return None if _installed("numba") else "numba is not installed (pip install 'blockforge[jit]')"


def needs_onednn(x: Tensor, *, plain: bool = True, **facts: Any) -> str | None:
    """Refuses what is not float32 in the CPU's memory, and what somebody looks into."""
    if x.device.type != "cpu":
        return f"oneDNN runs on the CPU, the tensor is on {x.device.type}"
    if x.dtype != torch.float32:
        return f"for {str(x.dtype).removeprefix('torch.')} torch's own way is as fast"
    if not torch.backends.mkldnn.is_available():
        return "this torch was built without oneDNN"
    return None if plain else "autocast, a counter, a transform or a compiler looks at the operators"


def needs_triton(x: Tensor, **facts: Any) -> str | None:
    """Refuses where triton is not installed, and tensors on no CUDA device, unless triton interprets."""
    if not _installed("triton"):
        return "triton is not installed"
    if x.is_cuda or (x.device.type == "cpu" and interpreting()):
        return None
    return f"triton needs a CUDA device, the tensor is on {x.device.type}"


def interpreting() -> bool:
    """Whether triton kernels run step by step on the CPU: TRITON_INTERPRET=1, set before they are imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def _wanted(argument: str | None) -> tuple[str, str]:
    """The backend asked for, and by what."""
    if argument is not None:
        return _known(argument, "argument"), "argument"
    if (inside := _in_context.get()) is not None:
        return inside, "backend()"
    return _known(os.environ.get(ENVIRONMENT) or "auto", ENVIRONMENT), ENVIRONMENT


def _known(name: str, by: str) -> str:
    if name not in NAMES:
        raise KernelError(f"{by}: there is no backend '{name}' of kernels\n  hint: {did_you_mean(name, NAMES)}")
    return name


@constant_of_a_graph
def _choose(
    operator: Operator, device: str, dtype: torch.dtype, argument: str | None, facts: tuple[tuple[str, Any], ...]
) -> str:
    """Choose and load. Its result is a constant of a compiled graph: imports and logs cannot be traced."""
    key = (device, dtype, *_wanted(argument), "triton" in operator.backends and interpreting(), facts)
    if (chosen := operator.chosen.get(key)) is not None:
        return chosen
    x = torch.empty(0, device=device, dtype=dtype)
    choice = operator.choose(x, argument, **dict(facts))
    _log.debug("%s: %s (%s)", operator.name, *choice)
    if len(operator.chosen) >= MOST_CHOICES:
        operator.chosen.clear()
    operator.chosen[key] = _load(operator, choice.backend)
    return choice.backend


@constant_of_a_graph
def _load(operator: Operator, backend: str) -> str:
    if backend not in operator.loaded:
        file = backend if backend == "reference" else f"{backend}_impl"
        module = importlib.import_module(f"blockforge.kernels.{operator.name}.{file}")
        operator.loaded[backend] = getattr(module, operator.name)
    return backend
