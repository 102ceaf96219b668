"""What makes each module of a network: the call of its constructor, or of a function that returns it, as it ran."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import nn

from blockforge.blocks.compose.module import Composed, Parts
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lowering.lower import build_modules
from blockforge.eject.composed import by_name, code_of
from blockforge.eject.expressions import Call, Definition, Expr, leaves, plain_value
from blockforge.eject.source import PLAIN, is_ours
from blockforge.errors import BlockforgeError

_PARTS = Definition(PLAIN, Parts.__name__)
MOST_POSITIONAL = 3
"""Of more arguments than these all but the first are written with their names."""


class EjectError(BlockforgeError):
    """A network that cannot be written as a file of its own."""


def recorded(arch: Architecture) -> dict[str, Expr]:
    """What makes each module that the network's graph calls, by its path, in the order in which they are built."""
    recorder, before = _Recorder(), sys.getprofile()
    with torch.random.fork_rng(devices=[]):
        sys.setprofile(recorder)
        try:
            modules = build_modules(arch)
        finally:
            sys.setprofile(before)
    made: dict[str, Expr] = {path: recorder.made[id(module)] for path, module in modules.items()}
    for path, expr in made.items():
        if lost := [leaf.name for leaf in leaves(expr) if not leaf.text]:
            text = f"{arch.name} cannot be ejected: {path} is made with a value that has no literal, {lost[0]}"
            raise EjectError(f"{text}\n  hint: give its module numbers, texts, tuples and modules, not the block")
    return made


class _Recorder:
    """A profiler: of a module's constructors the outermost stands, until a function at the top of a file returns it."""

    def __init__(self) -> None:
        self.made: dict[int, Call] = {}
        self.alive: list[nn.Module] = []  # so that no number is given twice
        self.running: dict[int, Call] = {}  # functions, by their frames
        self.unfinished: dict[int, nn.Module] = {}  # and constructors

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        if event == "return":
            made = self.unfinished.pop(id(frame), None)
            if isinstance(made, Composed):
                self.made[id(made)] = Call(code_of(made), self._inside(made))
            call = self.running.pop(id(frame), None)
            if call is not None and isinstance(result, nn.Module) and result not in self.unfinished.values():
                self.made[id(result)] = call
        elif event == "call" and frame.f_code.co_name == "__init__":
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and id(module) not in self.made:
                self.alive.append(module)
                self.unfinished[id(frame)] = module
                self.made[id(module)] = self._call(_name(type(module)), type(module).__init__, frame, bound=1)
        elif event == "call" and _may_return_modules(frame):
            function = frame.f_globals[frame.f_code.co_name]
            self.running[id(frame)] = self._call(_name(function), function, frame)

    def _call(self, name: str | Definition, function: Any, frame: FrameType, bound: int = 0) -> Call:
        parameters = list(inspect.signature(function).parameters.values())[bound:]
        needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        args: list[tuple[str, Expr]] = []
        for p in parameters:
            value = frame.f_locals[p.name]
            if p.kind is p.VAR_POSITIONAL:
                args = [*(("", v) for _, v in args), *(("", self._expr(v, p.name)) for v in value)]
            elif p.kind is p.VAR_KEYWORD:
                args += [(k, self._expr(v, k)) for k, v in value.items()]
            elif type(value) is not type(p.default) or value != p.default:
                is_short = p in needed and (len(needed) <= MOST_POSITIONAL or p is needed[0])
                args.append(("" if is_short else p.name, self._expr(value, p.name)))
        return Call(name, tuple(args))

    def _inside(self, holder: nn.Module) -> tuple[tuple[str, Expr], ...]:
        """The modules of a composed block's parts, as arguments."""
        parts: dict[str, Expr] = {
            name: Call(_PARTS, self._inside(part)) if type(part) is Parts else self.made[id(part)]
            for name, part in holder.named_children()
        }
        return by_name(parts)

    def _expr(self, value: Any, name: str) -> Expr:
        return self.made[id(value)] if id(value) in self.made else plain_value(value, name, self._expr)


def _may_return_modules(frame: FrameType) -> bool:
    """Whether it runs a function at the top of a file of blocks."""
    code, module = frame.f_code, frame.f_globals.get("__name__", "")
    if not is_ours(module) or module.startswith("blockforge.compiler"):
        return False
    return getattr(frame.f_globals.get(code.co_name), "__code__", None) is code


def _name(made: type | Callable[..., Any]) -> str | Definition:
    """A class of `torch.nn` by the name that everyone calls it, anything else by its place."""
    if getattr(nn, made.__name__, None) is made:
        return f"nn.{made.__name__}"
    return Definition(made.__module__, made.__name__)
