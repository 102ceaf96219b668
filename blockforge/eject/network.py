"""The class of the network: what it is made of, and its forward pass as the model's own graph has it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from torch import fx

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.units import Unit
from blockforge.compiler.lowering.lower import emit, emit_heads
from blockforge.eject.expressions import Call, Expr, Items, Leaf, layout, leaves, render
from blockforge.eject.layers import Kind

Tree = dict[str, Any]
MAPS = """\
    def stage_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        \"\"\"x_BCHW -> what the head reads, x_BHWC, and the map_BCHW of each stage.\"\"\"
        maps = []"""
FEATURES = """\
    def forward_features(self, x: Tensor) -> list[Tensor]:
        \"\"\"x_BCHW -> the map_BCHW of each stage.\"\"\"
        return self.stage_maps(x)[1]
"""


def stage_graph(arch: Architecture) -> fx.Graph:
    """What the heads read and the maps of all stages."""
    return emit(arch, maps=range(len(arch.plan.stages)), logits=False, beside=_read(arch))


def _read(arch: Architecture) -> list[Unit]:
    """What the heads read, each map once."""
    return list({unit.name: unit for head in arch.heads.values() for unit in arch.read_by(head)}.values())


class NetworkText:
    """The lines of the class `Backbone`."""

    def __init__(self, arch: Architecture, made: dict[str, Expr], where: dict[str, tuple[Kind, int]]) -> None:
        self.arch, self.graph, self.made = arch, stage_graph(arch), made
        self.rate = _linear(arch.plan.drop_path)
        self.rates = [repr(r) for r in arch.plan.drop_path] if self.rate else []
        self.tree: Tree = {}
        for path, expr in made.items():
            *folder, last = path.split(".")
            here = self.tree
            for part in folder:
                here = here.setdefault(part, {})
            here[last] = where[path][0].call(where[path][1], self.rates) if path in where else expr

    def lines(self) -> list[str]:
        heads = [self.made[head.name] for head in self.arch.heads.values()]
        has_classes = any(leaf.text == "num_classes" for head in heads for leaf in leaves(head))
        classes = f", num_classes: int = {self.arch.plan.num_classes}" if has_classes else ""
        rate = f", drop_path_rate: float = {self.rate}" if self.rate else ""
        lines = [
            "class Backbone(nn.Module):",
            f'    """{self.arch.name}: x_BCHW -> {_gives(self.arch)}."""',
            "",
            f"    def __init__(self{classes}{rate}) -> None:",
            "        super().__init__()",
        ]
        if self.rate:
            count = len(self.rates)
            lines.append(f"        rates = [drop_path_rate * i / {count - 1} for i in range({count})]")
        for name, built in self.tree.items():
            lines += layout(self._nested(built) if isinstance(built, dict) else built, 8, f"self.{name} = ")
        is_one = len(_read(self.arch)) == 1
        given, what = ("Tensor", "the head reads") if is_one else ("tuple[Tensor, ...]", "the heads read")
        lines += ["", f"    def stage_maps(self, x: Tensor) -> tuple[{given}, list[Tensor]]:"]
        lines += [
            f'        """x_BCHW -> what {what}, x_BHWC, and the map_BCHW of each stage."""',
            "        maps = []",
        ]
        return [*lines, *(f"        {line}" for line in self._steps()), "", *FEATURES.splitlines(), *self._forward()]

    def _forward(self) -> list[str]:
        """What the heads make of the maps."""
        heads, is_named = self.arch.heads, self.arch.plan.names_outputs
        lines = [
            "",
            f"    def forward(self, x: Tensor) -> {'dict[str, Tensor]' if is_named else 'Tensor'}:",
            f'        """x_BCHW -> {_gives(self.arch)}."""',
        ]
        graph = emit_heads(self.arch, _read(self.arch))
        if len(graph.nodes) == 3:  # a map, a head, an output
            name, head = next(iter(heads.items()))
            call = f"{self._path(head.name)}(self.stage_maps(x)[0])"
            return [*lines, f'        return {{"{name}": {call}}}' if is_named else f"        return {call}"]
        names = {n: _short(n) for n in graph.nodes if n.op != "output" and not _is_inside(n)}

        def text(arg: Any) -> str:
            return repr(arg) if not isinstance(arg, fx.Node) else names.get(arg) or self._value(arg, text)

        read = [n for n in graph.nodes if n.op == "placeholder"]
        lines.append(f"        {', '.join(map(text, read))} = self.stage_maps(x)[0]")
        made = [n for n in names if n not in read]
        lines += [f"        {names[n]} = {self._value(n, text)}" for n in made]
        (given,) = next(n for n in graph.nodes if n.op == "output").args
        if not isinstance(given, dict):
            return [*lines, f"        return {text(given)}"]
        items = ", ".join(f'"{name}": {text(n)}' for name, n in given.items())
        return [*lines, f"        return {{{items}}}"]

    def _nested(self, tree: Tree) -> Expr:
        """A container: a list of modules, of stages, or modules by name."""
        items = {k: self._nested(v) if isinstance(v, dict) else v for k, v in tree.items()}
        if _is_list(items):
            parts = tuple(items.values())
            return Call("nn.ModuleList", (("", _in_a_loop(parts) or Items("[", parts, "]")),))
        if all(k.isidentifier() for k in items):
            return Call("Stage", tuple(items.items()))
        return Call("nn.ModuleDict", (("", Items("{", tuple(items.values()), "}", tuple(f'"{k}"' for k in items))),))

    def _steps(self) -> list[str]:
        """A line for each step of the graph, a loop for the layers of a stage that run in a row."""
        output = next(n for n in self.graph.nodes if n.op == "output")
        given, maps = output.args[0]
        steps = [n for n in self.graph.nodes if n.op not in ("placeholder", "output") and not _is_inside(n)]
        names = {n: "x" for n in self.graph.nodes if n.op == "placeholder"}
        kept = [n.args[0] for n in given] if isinstance(given, list | tuple) else []
        lines: list[str] = []

        def text(arg: Any) -> str:
            return repr(arg) if not isinstance(arg, fx.Node) else names.get(arg) or self._value(arg, text)

        for i, node in enumerate(steps):
            value = self._value(node, text)
            next_step = next((j for j in range(i + 1, len(steps)) if steps[j].target != "size"), len(steps))
            is_passed = (
                node.target != "size" and node not in kept and max(_readers(node, steps), default=i) <= next_step
            )
            names[node] = "x" if is_passed else _short(node)
            lines.append(f"{names[node]} = {value}")
            lines += [f"maps.append({text(m)})" for m in maps if node is _mapped(m)]
        read = [text(n.args[0]) for n in (given if isinstance(given, list | tuple) else [given])]
        said = read[0] if len(read) == 1 else f"({', '.join(read)})"
        lines.append(f"return {said}, maps")
        return _looped(lines, [len(s.layers) for s in self.arch.plan.stages])

    def _value(self, node: fx.Node, text: Callable[[Any], str]) -> str:
        args = [text(a) for a in node.args]
        if node.op == "call_module":
            return f"{self._path(str(node.target))}({', '.join(args)})"
        if node.op == "call_method":
            return f"{args[0]}.{node.target}({', '.join(args[1:])})"
        if node.target is operator.add:
            return " + ".join(args)
        return f"{_function(node)}({', '.join(args)})"

    def _path(self, name: str) -> str:
        """A module's path as Python: `self.stages[2].layers[5]`, `self.skips[0]["2"]`."""
        first, *rest = name.split(".")
        text, here = f"self.{first}", self.tree[first]
        for part in rest:
            text += f"[{part}]" if _is_list(here) else f".{part}" if part.isidentifier() else f'["{part}"]'
            here = here[part]
        return text


def _short(node: fx.Node) -> str:
    """The variable for what a step gives."""
    return re.sub(r"stages_(\d+)_(layers_)?", r"s\1_", node.name)


def _gives(arch: Architecture) -> str:
    """What a network gives, in the letters of its shapes."""
    shapes = {name: head.last.out_shape for name, head in arch.heads.items()}
    letters = {name: "logits_BK" if shape.positions == 1 else "logits_BKHW" for name, shape in shapes.items()}
    if not arch.plan.names_outputs:
        return letters["head"]
    return ", ".join(f"{name} {said}" for name, said in letters.items())


def _function(node: fx.Node) -> str:
    return getattr(node.target, "__name__", "")


def _mapped(node: fx.Node) -> Any:
    """The step whose value a stage's map is."""
    return _mapped(node.args[0]) if _is_inside(node) else node  # type: ignore[arg-type]


def _is_inside(node: fx.Node) -> bool:
    """Whether a value is written inside what reads it."""
    to_nchw = node.target == "permute" and node.args[1:] == (0, 3, 1, 2)
    return to_nchw or node.name.endswith("_given") or _function(node) in ("fit_map", "token_map")


def _readers(node: fx.Node, steps: list[fx.Node]) -> set[int]:
    """The numbers of the steps that read a value; maps are read at once, and the last value at the end."""
    found: set[int] = set()
    for user in node.users:
        if user in steps:
            found.add(steps.index(user))
        elif user.op != "output":
            found |= _readers(user, steps)
    return found


def _looped(lines: list[str], depths: list[int]) -> list[str]:
    found: list[str] = []
    while lines:
        first = re.fullmatch(r"x = self\.stages\[(\d+)\]\.layers\[0\]\((\w+)\)", lines[0])
        depth = depths[int(first[1])] if first else 0
        row = [f"x = self.stages[{first[1]}].layers[{i}](x)" for i in range(1, depth)] if first else []
        if first and depth > 1 and lines[1:depth] == row:
            found += [f"x = {first[2]}"] * (first[2] != "x")
            found += [f"for layer in self.stages[{first[1]}].layers:", "    x = layer(x)"]
        else:
            depth = 1
            found.append(lines[0])
        lines = lines[depth:]
    return found


def _linear(rates: tuple[float, ...]) -> float:
    """The rate to which drop path rises linearly over the layers; 0 if it does not."""
    last, steps = round(rates[-1], 12), len(rates) - 1
    rises = steps > 0 and last > 0 and all(r == last * i / steps for i, r in enumerate(rates))
    return last if rises else 0.0


def _in_a_loop(items: tuple[Expr, ...]) -> Leaf | None:
    """One expression for several layers in a row that differ in nothing but their rates."""
    texts = [render(i) for i in items]
    if len(items) > 2 and len(set(texts)) == 1:
        return Leaf(f"{texts[0]} for _ in range({len(items)})")
    found = [re.fullmatch(r"(.*drop_path=)rates\[(\d+)\](.*)", t) for t in texts]
    matches = [m for m in found if m is not None]
    if len(matches) < max(2, len(items)) or len({(m[1], m[3]) for m in matches}) > 1:
        return None
    first = int(matches[0][2])
    if [int(m[2]) for m in matches] != list(range(first, first + len(items))):
        return None
    return Leaf(f"{matches[0][1]}rate{matches[0][3]} for rate in rates[{first}:{first + len(items)}]")


def _is_list(items: Tree) -> bool:
    """Whether a container's modules are numbered from 0."""
    return list(items) == [str(i) for i in range(len(items))]
