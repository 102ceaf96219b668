"""What is the same in every instance of a class that a network has: its blocks' parameters, its modules' options."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BranchSite
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import build_modules

PLAIN = (bool, int, float, str, tuple, type(None))


class Something:
    """A value that is no plain one; all that is known of it is that it is not None."""


SOMETHING = Something()


def options(node: Node) -> dict[str, Any]:
    """What a branch does with what its op gives, but for defaults; of other nodes nothing."""
    return node.site.residual.options() if isinstance(node.site, BranchSite) else {}


class Facts:
    """The instances of each class in a model."""

    def __init__(self, model: Backbone) -> None:
        self.blocks: dict[BaseModel, None] = {}
        self.modules = list(model.modules())
        self.calls = _constructor_calls(model)
        for node in model.arch.nodes.values():
            for value in (node.block, node.norm, *options(node).values()):
                self._add(value)

    def _add(self, value: Any) -> None:
        if isinstance(value, BaseModel):
            self.blocks[value] = None
            for name in type(value).model_fields:
                self._add(getattr(value, name))
        elif isinstance(value, tuple):
            for part in value:
                self._add(part)

    def values(self, cls: type, attribute: str) -> list[Any] | None:
        """An attribute's values in all instances of a class; None where it may change, or is computed."""
        instances: Iterable[Any]
        if issubclass(cls, BaseModel):
            instances = [b for b in self.blocks if isinstance(b, cls)]
        elif issubclass(cls, nn.Module) and _is_option(cls, attribute):
            instances = [m for m in self.modules if isinstance(m, cls)]
        else:
            return None
        found = [getattr(i, attribute) for i in instances if hasattr(i, attribute)]
        if any(callable(v) and not isinstance(v, nn.Module) for v in found):
            return None
        if issubclass(cls, nn.Module) and any(isinstance(v, int | float) and not isinstance(v, bool) for v in found):
            return None  # rates and counts are for users to change
        return [v if isinstance(v, PLAIN) else SOMETHING for v in found] or None

    def arguments(self, cls: type) -> dict[str, list[Any]]:
        """The values that each argument of a module's constructor had, in all calls."""
        found: dict[str, list[Any]] = {}
        for call in self.calls.get(cls, ()):
            for name, value in call.items():
                found.setdefault(name, []).append(value if isinstance(value, PLAIN) else SOMETHING)
        return found


def _constructor_calls(model: Backbone) -> dict[type, list[dict[str, Any]]]:
    """The arguments of every constructor of ours that runs when the model is built, found by building another."""
    calls: dict[type, list[dict[str, Any]]] = defaultdict(list)
    classes = {c for m in model.modules() for c in type(m).__mro__ if _is_ours(c) and "__init__" in vars(c)}
    usual = {c: c.__init__ for c in classes}  # type: ignore[misc]
    try:
        for cls in classes:
            cls.__init__ = _recording(usual[cls], calls[cls])  # type: ignore[misc]
        with torch.random.fork_rng(devices=[]):
            build_modules(model.arch, with_head=model.out_indices is None)
    finally:
        for cls in classes:
            cls.__init__ = usual[cls]  # type: ignore[misc]
    return calls


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("blockforge.") and issubclass(cls, nn.Module) and not issubclass(cls, Backbone)


def _recording(init: Any, calls: list[dict[str, Any]]) -> Any:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(dict(bound.arguments))
        init(*args, **kwargs)

    return recorded


def _is_option(cls: type, attribute: str) -> bool:
    """Whether an attribute is set once, in a constructor, to what its arguments say."""
    given, elsewhere = False, False
    for base in cls.__mro__:
        if not base.__module__.startswith("blockforge."):
            continue
        for function in _class_node(base).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Assign | ast.AnnAssign) and _sets(node, attribute):
                    switch = isinstance(node.value, ast.Constant)
                    given |= function.name == "__init__" and not switch
                    elsewhere |= function.name != "__init__" or switch
    return given and not elsewhere


def _sets(node: ast.Assign | ast.AnnAssign, attribute: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(
        isinstance(n, ast.Attribute) and n.attr == attribute and isinstance(n.ctx, ast.Store)
        for t in targets
        for n in ast.walk(t)
    )


_NODES: dict[type, ast.ClassDef] = {}


def _class_node(cls: type) -> ast.ClassDef:
    if cls not in _NODES:
        tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
        found = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == cls.__name__)
        _NODES[cls] = found
    return _NODES[cls]
