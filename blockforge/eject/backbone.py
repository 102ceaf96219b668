"""The class of the network: what it is made of, and its forward pass, from the architecture's graph."""

from __future__ import annotations

import re
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.sites import HeadSite, ImageSite, SkipSite, SumSite, WindowInSite, WindowOutSite
from blockforge.compiler.graph.units import Unit
from blockforge.compiler.lowering.lower import is_leaf_on_nchw
from blockforge.eject.layout import Call, Each, Expr, Items, Leaf, layout, render
from blockforge.eject.network import Kind, block
from blockforge.eject.values import Kept

Tree = dict[str, Any]


class BackboneText:
    """The lines of the class `Backbone`."""

    def __init__(self, arch: Architecture, where: dict[str, tuple[Kind, int]], kept: Kept) -> None:
        self.arch, self.where, self.kept = arch, where, kept
        self.rate = _linear(arch.plan.drop_path)

    def tree(self) -> Tree:
        """What builds each module, nested as the modules' paths are."""
        tree: Tree = {}
        for unit in self.arch.units:
            if not unit.has_module:
                continue
            *path, last = unit.name.split(".")
            here = tree
            for part in path:
                here = here.setdefault(part, {})
            here[last] = self._module(unit)
        return tree

    def _module(self, unit: Unit) -> Expr:
        if unit.name in self.where:
            kind, i = self.where[unit.name]
            return kind.call(i, self.arch.plan.drop_path if self.rate else ())
        match unit.first.site:
            case WindowInSite(window=window):
                return Call("WindowIn", (Leaf(repr(window)),))
            case WindowOutSite(window=window):
                return Call("WindowOut", (Leaf(repr(window)),))
            case HeadSite():
                built = block(unit.first, self.kept)
                assert isinstance(built, Call)
                return Call(built.func, (*built.args[:-1], Leaf("num_classes")))
        return block(unit.first, self.kept)

    def init(self) -> list[str]:
        rate = f", drop_path_rate: float = {self.rate}" if self.rate else ""
        lines = [
            f"    def __init__(self, num_classes: int = {self.arch.plan.num_classes}{rate}) -> None:",
            "        super().__init__()",
        ]
        if self.rate:
            count = len(self.arch.plan.drop_path)
            lines.append(f"        rates = [drop_path_rate * i / {count - 1} for i in range({count})]")
        for name, built in self.tree().items():
            expr = self._nested(built) if isinstance(built, dict) else built
            lines += layout(expr, 8, f"self.{name} = ")
        return lines

    def _nested(self, tree: Tree) -> Expr:
        """A container: a list of modules, of stages, or modules by name."""
        items = {k: self._nested(v) if isinstance(v, dict) else v for k, v in tree.items()}
        if (same := _all_but_rate(list(items.values()))) is not None:
            return Call("nn.ModuleList", (same,))
        if _is_list(items):
            return Call("nn.ModuleList", (Items("[", tuple(items.values()), "]"),))
        if "layers" in items:
            return Call("Stage", (), tuple(items.items()))
        return Call("nn.ModuleDict", (Items("{", tuple(items.values()), "}", tuple(f'"{k}"' for k in items)),))

    def forward(self) -> list[str]:
        """`forward_features`: the units in order, runs of layers as loops, and a map for each stage."""
        lines = [
            "    def forward_features(self, x: Tensor) -> list[Tensor]:",
            '        """x_BCHW -> the map_BCHW of each stage."""',
        ]
        channels = self.arch.plan.input.channels
        lines += [f"        x = image_map(x, {channels}, {self.arch.least_image})", "        maps = []"]
        lines += [f"        {line}" for line in self._steps()]
        return [*lines, "        return maps"]

    def _steps(self) -> list[str]:
        ends = {stage.end.name for stage in self.arch.stages}
        names = self._variables()
        sizes = self._sizes()
        looped = self._loops(names)
        lines: list[str] = []
        for unit in self.arch.units:
            site = unit.first.site
            if unit.name in looped:
                lines += looped[unit.name]
            elif not isinstance(site, ImageSite | HeadSite):
                args = [names[i] for i in unit.inputs]
                if isinstance(site, WindowOutSite):
                    args.append(f"*{sizes[site.like]}")
                if isinstance(site, SkipSite) and unit.first.shapes.rounding is not None:
                    args = [f"fit_map({args[0]}, *{sizes[site.like]}, {unit.first.shapes.rounding})"]
                lines.append(f"{names[unit.name]} = {self._called(unit, args)}")
            lines += [f"{sizes[n.name]} = {names[unit.name]}.shape[1:3]" for n in unit.nodes if n.name in sizes]
            if unit.name in ends:
                lines.append(f"maps.append({names[unit.name]}.permute(0, 3, 1, 2))")
        return lines

    def _sizes(self) -> dict[str, str]:
        """Nodes whose maps' sizes others ask for, and what those are called."""
        found: dict[str, str] = {}
        for node in self.arch.nodes.values():
            match node.site:
                case WindowOutSite(like=like):
                    found[like] = f"size_{node.stage}"
                case SkipSite(like=like) if node.shapes.rounding is not None:
                    found[like] = f"size_{node.stage}_in"
        return found

    def _called(self, unit: Unit, args: list[str]) -> str:
        """What gives a unit's map: a sum, or the call of its module."""
        if isinstance(unit.first.site, SumSite):
            return " + ".join(args)
        path = self._path(unit.name)
        return f"on_nchw({path}, {args[0]})" if is_leaf_on_nchw(unit.first) else f"{path}({', '.join(args)})"

    def _variables(self) -> dict[str, str]:
        """A variable for each unit's map: `x`, unless something later than the next unit reads it."""
        readers: dict[str, list[int]] = {}
        for i, unit in enumerate(self.arch.units):
            for source in unit.inputs:
                readers.setdefault(source, []).append(i)
        names = {}
        for i, unit in enumerate(self.arch.units):
            passing = set(readers.get(unit.name, [i + 1])) <= {i + 1}
            short = unit.name.replace("stages.", "s").replace("layers.", "l").replace(".", "_")
            names[unit.name] = "x" if passing else short if short.isidentifier() else f"m_{short}"
        return names

    def _loops(self, names: dict[str, str]) -> dict[str, list[str]]:
        """Stages whose layers all run in a row: the first layer's line is a loop, the others have none."""
        lines: dict[str, list[str]] = {}
        for i, stage in enumerate(self.arch.stages):
            own = stage.layers
            names_in = {names[s] for u in own[1:] for s in u.inputs} | {names[u.name] for u in own}
            if len(own) > 1 and names_in == {"x"} and all(len(u.inputs) == 1 for u in own):
                start = names[own[0].inputs[0]]
                before = [f"x = {start}"] if start != "x" else []
                lines[own[0].name] = [*before, f"for layer in self.stages[{i}].layers:", "    x = layer(x)"]
                lines.update({u.name: [] for u in own[1:]})
        return lines

    def _path(self, name: str) -> str:
        """A module's path as Python: `self.stages[2].layers[5]`, `self.skips[0]["2"]`."""
        first, *rest = name.split(".")
        text, here = f"self.{first}", self.tree()[first]
        for part in rest:
            text += f"[{part}]" if _is_list(here) else f".{part}" if "layers" in here else f'["{part}"]'
            here = here[part]
        return text


def _linear(rates: tuple[float, ...]) -> float:
    """The rate to which drop path rises linearly over the layers; 0 if it does not."""
    last, steps = round(rates[-1], 12), len(rates) - 1
    rises = steps > 0 and last > 0 and all(r == last * i / steps for i, r in enumerate(rates))
    return last if rises else 0.0


def _all_but_rate(items: list[Expr]) -> Each | None:
    """One expression for several layers in a row that differ in nothing but their rates."""
    texts = [render(i) for i in items]
    if len(items) > 2 and len(set(texts)) == 1:
        return Each(items[0], f"for _ in range({len(items)})")
    found = [re.fullmatch(r"(.*drop_path=)rates\[(\d+)\](.*)", t) for t in texts]
    matches = [m for m in found if m is not None]
    if len(matches) < max(2, len(items)) or len({(m[1], m[3]) for m in matches}) > 1:
        return None
    first = int(matches[0][2])
    if [int(m[2]) for m in matches] != list(range(first, first + len(items))):
        return None
    return Each(Leaf(f"{matches[0][1]}rate{matches[0][3]}"), f"for rate in rates[{first}:{first + len(items)}]")


def _is_list(items: Tree) -> bool:
    """Whether a container's modules are numbered from 0."""
    return list(items) == [str(i) for i in range(len(items))]
