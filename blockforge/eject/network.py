"""The network itself as Python: a function for each kind of layer, and the class that puts them together."""

from __future__ import annotations

import keyword
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from blockforge.blocks.base import Shape
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BranchSite
from blockforge.compiler.graph.units import Layer
from blockforge.eject.facts import options
from blockforge.eject.layout import Call, Expr, Items, Leaf, Method, layout, render
from blockforge.eject.members import quoted
from blockforge.eject.values import Kept, expression, given

NONE = Leaf("None")
Written = Collection[tuple[type, str]]
"""Parameters to write out though they are at their defaults."""


def block(node: Node, kept: Kept, written: Written = frozenset()) -> Expr:
    """What builds a node's block: `SAM(num_heads=4).build(Shape(56, 56, 64))`."""
    placed = node.shapes.placed
    assert placed is not None
    return Call(Method(expression(placed.op, kept, written), "build"), tuple(expression(p, kept) for p in placed.place))


def layer(unit: Layer, kept: Kept, written: Written) -> Expr:
    """What builds a layer, as `compiler.lower` does."""
    branches: dict[str, Expr] = {}
    fuse: Expr | None = None
    for node in unit.nodes:
        norm: Expr = NONE
        if node.norm is not None:
            shape = expression(node.shapes.in_shape, kept)
            norm = Call(Method(expression(node.norm, kept, written), "build"), (shape,))
        if not isinstance(node.site, BranchSite):
            fuse = Call("Fuse", (block(node, kept, written), norm))
            continue
        given: dict[str, Any] = {"dim": node.out_shape.dim, "drop_path": node.drop_path}
        named: list[tuple[str, Expr]] = [("norm", norm), *((k, Leaf(repr(v), v)) for k, v in given.items())]
        named += [(k, expression(v, kept, written)) for k, v in options(node).items()]
        branches[node.site.key] = Call("Branch", (block(node, kept, written),), tuple(named))
    table = Items("{", tuple(branches.values()), "}", tuple(f'"{b}"' for b in branches))
    if fuse is None:
        return Call("Layer", (table,))
    # In the order in which they are built, so that equal seeds give equal weights.
    return Call("Layer", (), (("fuse", fuse), ("branches", table), ("fed", Leaf(quoted(unit.fed or ""), unit.fed))))


def leaves(expr: Expr, name: str = "value") -> Iterator[tuple[str, Leaf]]:
    """The values in an expression, each with a name for it, in order."""
    if isinstance(expr, Leaf):
        yield ("shape" if isinstance(expr.value, Shape) else name), expr
    elif isinstance(expr, Items):
        for item in expr.items:
            yield from leaves(item, name)
    elif isinstance(expr, Call):
        if isinstance(expr.func, Method):
            yield from leaves(expr.func.base)
        for i, arg in enumerate(expr.args):
            yield from leaves(arg, "dim" if i else "value")
        for key, value in expr.kwargs:
            yield from leaves(value, key)


def replaced(expr: Expr, with_: Iterator[Leaf]) -> Expr:
    """The expression with other values in the same order."""
    if isinstance(expr, Leaf):
        return next(with_)
    if isinstance(expr, Items):
        return Items(expr.opening, tuple(replaced(i, with_) for i in expr.items), expr.closing, expr.keys)
    assert isinstance(expr, Call)
    func = expr.func
    if isinstance(func, Method):
        func = Method(replaced(func.base, with_), func.name)
    args = tuple(replaced(a, with_) for a in expr.args)
    return Call(func, args, tuple((k, replaced(v, with_)) for k, v in expr.kwargs))


@dataclass
class Kind:
    """Layers that differ in values alone: a function with a parameter for each value that varies."""

    name: str
    numbers: list[int] = field(default_factory=list)
    layers: list[Expr] = field(default_factory=list)

    def columns(self) -> list[tuple[str, list[Leaf]]]:
        """Each value's name, and its values in all layers."""
        rows = [list(leaves(e)) for e in self.layers]
        return [(column[0][0], [leaf for _, leaf in column]) for column in zip(*rows, strict=True)]

    def parameters(self) -> dict[str, list[Leaf]]:
        """The values that vary, by parameter; equal columns share one."""
        found: dict[str, list[Leaf]] = {}
        for name, column in self.columns():
            rates = name == "drop_path" and any(c.value for c in column)
            if (
                (len({c.text for c in column}) == 1 and not rates)
                or _is_dim_of(column, found)
                or column in found.values()
            ):
                continue
            number = 2
            unique = name
            while unique in found:
                unique, number = f"{name}_{number}", number + 1
            found[unique] = column
        return dict(sorted(found.items(), key=lambda p: p[0] != "shape"))

    def function(self) -> list[str]:
        """The function that builds such a layer."""
        parameters = self.parameters()
        by_column = {tuple(c.text for c in column): name for name, column in parameters.items()}

        def value(column: list[Leaf]) -> Leaf:
            texts = tuple(c.text for c in column)
            if len(set(texts)) == 1 and texts not in by_column:
                return column[0]
            of = _is_dim_of(column, parameters)
            return Leaf(f"{of}.dim") if of and texts not in by_column else Leaf(by_column[texts])

        body = replaced(self.layers[0], iter([value(c) for _, c in self.columns()]))
        types = {n: type(c[0].value).__name__ for n, c in parameters.items()}
        args = ", ".join(f"{n}: {'tuple[int, ...]' if t == 'tuple' else t}" for n, t in types.items())
        return [f"def {self.name}({args}) -> Layer:", *layout(body, 4, "return ")]

    def call(self, i: int, rates: Sequence[float]) -> Expr:
        """What builds the i-th layer of this kind; `rates`: the drop path of each layer of the network."""
        number, args = self.numbers[i], []
        for name, column in self.parameters().items():
            is_rate = name == "drop_path" and rates and column[i].value == rates[number]
            args.append((name, Leaf(f"rates[{number}]") if is_rate else column[i]))
        first = tuple(a for n, a in args if n == "shape")
        return Call(self.name, first, tuple((n, a) for n, a in args if n != "shape"))


def _is_dim_of(column: list[Leaf], parameters: dict[str, list[Leaf]]) -> str | None:
    """The shape among the parameters whose `dim` a column is."""
    for name, other in parameters.items():
        if all(isinstance(s.value, Shape) and s.value.dim == c.value for s, c in zip(other, column, strict=True)):
            return name
    return None


def kinds(arch: Architecture, kept: Kept) -> tuple[list[Kind], dict[str, tuple[Kind, int]]]:
    """The kinds of layers, and for each layer's unit its kind and its place in it."""
    written: dict[str, set[tuple[type, str]]] = defaultdict(set)
    layers = [unit for unit in arch.units if isinstance(unit, Layer)]
    for unit in layers:
        for node in unit.nodes:
            values = [v for v in (node.block, node.norm, *options(node).values()) if isinstance(v, BaseModel)]
            written[_identifier(unit.block)].update(p for v in values for p in given(v))
    found: dict[tuple[str, str], Kind] = {}
    where: dict[str, tuple[Kind, int]] = {}
    taken: dict[str, int] = defaultdict(int)
    for number, unit in enumerate(layers):
        name = _identifier(unit.block)
        built = layer(unit, kept, written[name])
        shape = render(replaced(built, iter([Leaf("_") for _ in leaves(built)])))
        key = (name, shape)
        if key not in found:
            taken[name] += 1
            found[key] = Kind(f"{name}_layer" + (f"_{taken[name]}" if taken[name] > 1 else ""))
        kind = found[key]
        where[unit.name] = (kind, len(kind.layers))
        kind.layers.append(built)
        kind.numbers.append(number)
    return list(found.values()), where


def _identifier(name: str) -> str:
    """A block's name as Python takes it."""
    text = name.replace("-", "_")
    return f"{text}_" if keyword.iskeyword(text) or not text.isidentifier() else text
