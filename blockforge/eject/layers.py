"""Layers that differ in values alone, as one class: a parameter for each value that varies."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.eject.expressions import Call, Expr, Leaf, layout, leaves, render, replaced

LAYER = re.compile(r"stages\.(\d+)\.layers\.(\d+)")


@dataclass
class Kind:
    """Layers of one class. `numbers` are those of the layers in the network."""

    name: str
    block: str
    numbers: list[int] = field(default_factory=list)
    layers: list[Call] = field(default_factory=list)

    def parameters(self) -> dict[str, list[str]]:
        """The values that vary, by parameter; equal columns share one."""
        found: dict[str, list[str]] = {}
        for column in zip(*(leaves(layer) for layer in self.layers), strict=True):
            texts, name = [leaf.text for leaf in column], column[0].name
            if (len(set(texts)) > 1 or name == "drop_path") and texts not in found.values():
                others = sum(re.fullmatch(rf"{name}(_\d+)?", n) is not None for n in found)
                found[f"{name}_{others + 1}" if others else name] = texts
        return found

    def lines(self) -> list[str]:
        """The class."""
        parameters = self.parameters()
        columns = iter([[leaf.text for leaf in c] for c in zip(*(leaves(layer) for layer in self.layers), strict=True)])
        names = {tuple(texts): name for name, texts in parameters.items()}

        def written(leaf: Leaf) -> Leaf:
            return Leaf(names.get(tuple(next(columns)), leaf.text))

        built = replaced(self.layers[0], written, lambda func: func)
        assert isinstance(built, Call)
        given: dict[str, Any] = {key or ("branches", "fuse", "fed")[i]: v for i, (key, v) in enumerate(built.args)}
        branches = dict(zip(given["branches"].keys, given["branches"].items, strict=True))
        args = ["self", *(f"{name}: {_type(texts)}" for name, texts in parameters.items())]
        fuse, fed = given.get("fuse"), given["fed"].text if "fed" in given else ""
        lines = [
            f"class {self.name}(nn.Module):",
            f'    """A layer of `{self.block}`."""',
            "",
            *layout(Call("def __init__", tuple(("", Leaf(arg)) for arg in args)), 4, "", " -> None:"),
            "        super().__init__()",
            *(layout(fuse, 8, "self.aggregate = ") if fuse is not None else ()),
        ]
        for key, branch in branches.items():
            lines += (
                layout(branch, 8, f"{_attribute(key)} = ")
                if _is_plain(key)
                else layout(branch, 8, f"self.add_module({key}, ", ")")
            )
        lines += ["", f"    def forward(self, x: Tensor{', *sources: Tensor' if fuse is not None else ''}) -> Tensor:"]
        for key in branches:
            fed_too = ", self.aggregate(x, list(sources))" if key == fed else ""
            lines.append(f"        x = {_attribute(key)}(x{fed_too})")
        return [*lines, "        return x"]

    def call(self, i: int, rates: Sequence[str]) -> Call:
        """What builds the i-th layer of this class; `rates`: the drop path of each layer of the network, as text."""
        args = []
        for n, (name, texts) in enumerate(self.parameters().items()):
            is_rate = name == "drop_path" and rates and texts[i] == rates[self.numbers[i]]
            leaf = Leaf(f"rates[{self.numbers[i]}]" if is_rate else texts[i])
            args.append(("" if n == 0 and not is_rate else name, leaf))
        return Call(self.name, tuple(args))


def _attribute(key: str) -> str:
    name = key.strip('"')
    return f"self.{name}" if _is_plain(key) else f"self.get_submodule({key})"


def _is_plain(key: str) -> bool:
    return key.strip('"').isidentifier()


def _type(texts: list[str]) -> str:
    value = ast.literal_eval(texts[0])
    return "tuple[int, ...]" if isinstance(value, tuple) else type(value).__name__


def kinds(arch: Architecture, made: dict[str, Expr]) -> tuple[list[Kind], dict[str, tuple[Kind, int]]]:
    """The classes of layers, and for each layer's path its class and its place among those of that class."""
    found: dict[str, Kind] = {}
    where: dict[str, tuple[Kind, int]] = {}
    for number, path in enumerate(p for p in made if LAYER.fullmatch(p)):
        stage, layer = map(int, LAYER.fullmatch(path).groups())  # type: ignore[union-attr]
        block, built = arch.plan.stages[stage].layers[layer][0], made[path]
        assert isinstance(built, Call)
        key = block + render(replaced(built, lambda leaf: Leaf("", leaf.name), lambda func: func))
        if key not in found:
            taken = sum(kind.block == block for kind in found.values())
            name = re.sub(r"\W", "", block.title().replace("_", "")).removesuffix("Layer") + "Layer"
            found[key] = Kind(f"{name}{taken + 1}" if taken else name, block)
        kind = found[key]
        where[path] = (kind, len(kind.layers))
        kind.layers.append(built)
        kind.numbers.append(number)
    return list(found.values()), where
