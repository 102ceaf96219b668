"""What makes each module of a network: the call of its constructor, or of a function that returns it, as it ran.

A call is text in which a definition is written `@module.name` and a value `«parameter:value»`, for whoever gives it
another name or makes it an argument.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from keyword import iskeyword
from types import FrameType
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from blockforge.blocks.base import Op
from blockforge.blocks.compose.module import Composed, Parts
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lowering.lower import build_modules
from blockforge.eject.source import PLAIN, is_ours
from blockforge.errors import BlockforgeError

VALUE = re.compile("«([^:»]*):([^»]*)»")
DEFINITION = re.compile(r"@([\w.]+)\.(\w+)")
_BUILDING = ("blockforge.compiler", "blockforge.blocks.building")
"""Where whatever builds any block stands: no part of what that builds."""
MOST_POSITIONAL = 3
"""Of more arguments than these all but the first are written with their names."""


class EjectError(BlockforgeError):
    """A network that cannot be written as a file of its own."""


def recorded(arch: Architecture) -> tuple[dict[str, nn.Module], dict[int, str]]:
    """The modules that the network's graph calls, by their paths and in the order in which they are built, and what
    makes each module, by its `id`; a composed one is made by `@composed.` and its `id`."""
    recorder, before = _Recorder(), sys.getprofile()
    with torch.random.fork_rng(devices=[]):
        sys.setprofile(recorder)
        try:
            modules = build_modules(arch)
        finally:
            sys.setprofile(before)
    for path, module in modules.items():
        for name, value in VALUE.findall(recorder.made[id(module)]):
            if not value:
                text = f"{arch.name} cannot be ejected: {path} is made with a value that has no literal, {name}"
                raise EjectError(f"{text}\n  hint: give its module numbers, texts, tuples and modules, not the block")
    return modules, recorder.made


class _Recorder:
    """A profiler: of a module's constructors the outermost stands, until a function at the top of a file returns it."""

    def __init__(self) -> None:
        self.made: dict[int, str] = {}
        self.alive: list[nn.Module] = []  # so that no number is given twice
        self.running: dict[int, str] = {}  # functions, by their frames
        self.unfinished: dict[int, nn.Module] = {}  # and constructors

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if event == "return":
            made = self.unfinished.pop(id(frame), None)
            if isinstance(made, Composed):
                self.made[id(made)] = f"@composed.{id(made)}({self._parts(made)})"
            call = self.running.pop(id(frame), None)
            if call and isinstance(result, nn.Module) and result not in self.unfinished.values():
                self.made[id(result)] = call
        elif event == "call" and code.co_name == "__init__":
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and id(module) not in self.made:
                self.alive.append(module)
                self.unfinished[id(frame)] = module
                self.made[id(module)] = self._call(type(module), frame)
        elif event == "call" and is_ours(place := str(frame.f_globals.get("__name__"))):
            function = frame.f_globals.get(code.co_name)
            if getattr(function, "__code__", None) is code and not place.startswith(_BUILDING):
                self.running[id(frame)] = self._call(function, frame)

    def _call(self, made: Any, frame: FrameType) -> str:
        is_class = isinstance(made, type)
        signature = inspect.signature(getattr(made, "__init__") if is_class else made)  # noqa: B009
        parameters = list(signature.parameters.values())[is_class:]
        needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        args: list[tuple[str, str]] = []
        for p in parameters:
            value = frame.f_locals[p.name]
            if p.kind is p.VAR_POSITIONAL:
                args = [*(("", text) for _, text in args), *(("", self._text(v, p.name)) for v in value)]
            elif p.kind is p.VAR_KEYWORD:
                args += [(f"{key}=", self._text(v, key)) for key, v in value.items()]
            elif type(value) is not type(p.default) or value != p.default:
                is_short = p in needed and (len(needed) <= MOST_POSITIONAL or p is needed[0])
                args.append(("" if is_short else f"{p.name}=", self._text(value, p.name)))
        return f"{_name(made)}({', '.join(key + text for key, text in args)})"

    def _parts(self, holder: nn.Module) -> str:
        """The modules of a composed block's parts, as arguments."""
        parts = {
            name: f"@{PLAIN}.Parts({self._parts(part)})" if type(part) is Parts else self.made[id(part)]
            for name, part in holder.named_children()
        }
        if all(name.isidentifier() and not iskeyword(name) for name in parts):
            return ", ".join(f"{name}={text}" for name, text in parts.items())
        return f"**{{{', '.join(f'{json.dumps(name)}: {text}' for name, text in parts.items())}}}"

    def _text(self, value: Any, name: str) -> str:
        """A value; of one that has no literal nothing is between the marks. A block, which is not written, leaves its
        parameters, a part of a spec the tuple of its values."""
        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, BaseModel) and not isinstance(value, Op):
            value = tuple(getattr(value, n) for n in type(value).model_fields)
        if isinstance(value, tuple) and type(value) is not tuple:  # a named one
            fields = getattr(value, "_fields", (name,) * len(value))
            return f"{_name(type(value))}({', '.join(self._text(v, n) for n, v in zip(fields, value, strict=True))})"
        if isinstance(value, Op) or dataclasses.is_dataclass(value):
            names = type(value).model_fields if isinstance(value, Op) else [f.name for f in dataclasses.fields(value)]
            fields = (f"{n}={self._text(getattr(value, n), n)}" for n in names)
            return f"{_name(type(value))}({', '.join(fields)})"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{json.dumps(k)}: {self._text(v, name)}' for k, v in value.items())}}}"
        if isinstance(value, list | tuple) and not all(isinstance(v, int | float | str) for v in value):
            items = ", ".join(self._text(v, name) for v in value)
            return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
        is_literal = isinstance(value, bool | int | float | str | list | tuple) or value is None
        return f"«{name}:{repr(value).replace(chr(39), chr(34)) if is_literal else ''}»"


def _name(made: Any) -> str:
    """A class of `torch.nn` by the name that everyone calls it, anything else by its place."""
    of_torch = getattr(nn, made.__name__, None) is made
    return f"nn.{made.__name__}" if of_torch else f"@{made.__module__}.{made.__name__}"
