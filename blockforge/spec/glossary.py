"""Definitions: ops with a name and parameters, a spec's own and those of the files that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from blockforge.errors import Path
from blockforge.spec.expressions.tree import Node
from blockforge.spec.values import Expr, all_values, names_in

REQUIRED = "required"
"""In place of a default: the parameter has none."""


@dataclass(frozen=True, slots=True)
class Definition:
    """An op that has a name.

    Attributes:
        params: name -> default, or `required`; a default may name the parameters before it.
        body: the op; its names are those of parameters and of its place.
        path: where it is written: `("define", name)`.
        glossary: gives the definitions that its body names.
    """

    name: str
    params: Mapping[str, Any]
    body: Any
    path: Path = field(compare=False)
    glossary: Glossary = field(compare=False, repr=False)

    @property
    def body_path(self) -> Path:
        return (*self.path, "body") if has_params(self.glossary.define[self.name]) else self.path


@dataclass(frozen=True, slots=True)
class Glossary:
    """What `define` and `use` of a document give.

    Attributes:
        define: name -> definition, as it is written: an op, or a mapping of `params` and `body`.
        used: the files under `use`, each with its prefix. What they use themselves only they see.
        path: where `define` stands in the document.
    """

    define: Mapping[str, Any] = field(default_factory=dict)
    used: tuple[tuple[str | None, Glossary], ...] = ()
    path: Path = field(default=("define",), compare=False)

    @classmethod
    def of(cls, tree: Any, path: Path = ()) -> Glossary:
        """The glossary of a lifted document, or of an item of its `use`."""
        used = tuple((item.get("as"), cls.of(item, (*path, "use", i))) for i, item in enumerate(tree.get("use", ())))
        return cls(tree.get("define", {}), used, (*path, "define"))

    def find(self, name: str) -> Definition | None:
        """What a name stands for: a definition of this file, or else of one that it uses."""
        if name in self.define:
            return self.own(name)
        prefix, dot, rest = name.rpartition(".")
        for given, glossary in self.used:
            if (given or "") == prefix and rest in glossary.define and bool(given) == bool(dot):
                return glossary.own(rest)
        return None

    def names(self) -> list[str]:
        """Every name that `find` knows."""
        used = (f"{prefix}.{name}" if prefix else name for prefix, lib in self.used for name in lib.define)
        return list(dict.fromkeys((*self.define, *used)))

    def all(self) -> Iterator[Glossary]:
        """This glossary and those that it uses, directly or not."""
        yield self
        for _, glossary in self.used:
            yield from glossary.all()

    def own(self, name: str) -> Definition:
        """A definition of this file."""
        written, path = self.define[name], (*self.path, name)
        if has_params(written):
            return Definition(name, written.get("params", {}), written["body"], path, self)
        return Definition(name, {}, written, path, self)


def has_params(written: Any) -> bool:
    """Whether a definition is written with `params` and `body`; else it is an op alone."""
    return isinstance(written, dict) and "op" not in written and "body" in written


def filled(glossary: Glossary, network: Any, fill: Callable[[Any, Path], Any]) -> Glossary:
    """The glossary with the holes filled of what the network may use.

    Args:
        network: anything that holds the ops of a resolved spec.
        fill: a definition and its path -> the definition without holes.
    """
    return _replaced(glossary, reached(glossary, network, fill))


def reached(glossary: Glossary, network: Any, fill: Callable[[Any, Path], Any]) -> dict[Path, Any]:
    """What the network may use, by path, and filled: each definition whose name is a text in it, or in one of these."""
    done: dict[Path, Any] = {}
    todo = [(network, glossary)] if glossary.define or glossary.used else []  # most specs define nothing
    while todo:
        value, scope = todo.pop()
        for text in _texts(value):
            definition = scope.find(text)
            if definition is not None and definition.path not in done:
                done[definition.path] = fill(definition.glossary.define[definition.name], definition.path)
                todo.append((done[definition.path], definition.glossary))
    return done


def flat(glossary: Glossary, network: Any) -> dict[str, Any] | None:
    """The definitions that a network may use as one table; None where a name would then mean another one."""
    done = reached(glossary, network, lambda definition, _: definition)
    scopes = {part.path: part for part in glossary.all()}
    table = {name: done[p] for part in scopes.values() for name in part.define if (p := (*part.path, name)) in done}
    for value, scope in [(network, glossary), *((written, scopes[path[:-1]]) for path, written in done.items())]:
        for text in _texts(value):
            meant = scope.find(text)
            if table.get(text) != (None if meant is None else meant.glossary.define[meant.name]):
                return None
    return table


def names_read(glossary: Glossary, part: Any) -> set[str]:
    """The names that the definitions read which a part of a spec may use, their own parameters included."""
    written = reached(glossary, part, lambda definition, _: definition)
    return {name for definition in written.values() for value in all_values(definition) for name in names_in(value)}


def _replaced(glossary: Glossary, done: Mapping[Path, Any]) -> Glossary:
    define = {name: done.get((*glossary.path, name), written) for name, written in glossary.define.items()}
    used = tuple((prefix, _replaced(other, done)) for prefix, other in glossary.used)
    return Glossary(define, used, glossary.path)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys aside; of an expression also its names, which does no harm."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Expr | Node):
        yield from _texts(value.node if isinstance(value, Expr) else (value.value, *value.parts))
    elif isinstance(value, BaseModel | dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        for item in items:
            yield from _texts(item)
