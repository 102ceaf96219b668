"""The class of the network: what it is made of, and its forward pass as the model's own graph has it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import fx

from blockforge.blocks.joins.meeting import added
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lowering.lower import emit, emit_heads
from blockforge.eject.classes import RATES

CLASS = "Backbone"
TEXT = '''\
class Backbone(nn.Module):
    """{title}"""

    def __init__(self{args}) -> None:
        super().__init__()
{modules}

    def stage_maps(self, x: Tensor) -> tuple[{kind}, list[Tensor]]:
        """x_BCHW -> what the {what}, x_BHWC, and the map_BCHW of each stage."""
        maps = []
{steps}
        return {read}, maps

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """x_BCHW -> the map_BCHW of each stage."""
        return self.stage_maps(x)[1]

    def forward(self, x: Tensor) -> {result}:
        """x_BCHW -> {gives}."""
{head_steps}
'''


class Network:
    """The class as text. `made`: what makes each module, by its path."""

    def __init__(self, arch: Architecture, made: dict[str, str]) -> None:
        self.arch, self.made, self.tree = arch, " ".join(made.values()), dict[str, Any]()
        for path, text in made.items():
            *folder, last = path.split(".")
            here = self.tree
            for part in folder:
                here = here.setdefault(part, {})
            here[last] = text
        read = {unit.name: unit for head in arch.heads.values() for unit in arch.read_by(head)}
        self.stages = emit(arch, maps=range(len(arch.stages)), logits=False, beside=list(read.values()))
        self.heads = emit_heads(arch, list(read.values()))

    def functions(self) -> list[Any]:
        """What the graph calls beside modules."""
        return [n.target for n in self.stages.nodes if n.op == "call_function" and n.target is not added]

    def text(self) -> str:
        """The class; a line for each statement, however long."""
        plan, gives, args = self.arch.plan, shapes_given(self.arch), ""
        if re.search(r"\bnum_classes\b(?!=)", self.made):
            args = f", num_classes: int = {plan.num_classes}"
        modules = [f"self.{name} = {_nested(part)}" for name, part in self.tree.items()]
        if RATES in self.made:
            args += f", drop_path_rate: float = {last_rate(plan.drop_path)}"
            count = len(plan.drop_path)
            modules.insert(0, f"rates = [drop_path_rate * i / {count - 1} for i in range({count})]")
        given, maps = _output(self.stages)
        read = [n.args[0] for n in (given if isinstance(given, list | tuple) else [given])]
        steps, names = self._steps(self.stages, read, maps)
        result = _output(self.heads)
        head_steps, head_names = self._steps(self.heads, [*result.values()] if plan.names_outputs else [result], [])
        given_maps = ", ".join(head_names[n] for n in self.heads.nodes if n.op == "placeholder")
        if plan.names_outputs:
            head_steps += [f"return {{{', '.join(f'{json.dumps(k)}: {head_names[n]}' for k, n in result.items())}}}"]
        else:
            head_steps[-1] = re.sub("^x =", "return", head_steps[-1])
        return TEXT.format(
            title=f"{self.arch.name}: x_BCHW -> {gives}.",
            args=args,
            modules=_indented(modules),
            kind="Tensor" if len(read) == 1 else "tuple[Tensor, ...]",
            what="head reads" if len(read) == 1 else "heads read",
            steps=_indented(self._looped("\n".join([*steps, ""])).splitlines()),
            read=names[read[0]] if len(read) == 1 else f"({', '.join(names[n] for n in read)})",
            result="dict[str, Tensor]" if plan.names_outputs else "Tensor",
            gives=gives,
            head_steps=_indented([f"{given_maps} = self.stage_maps(x)[0]", *head_steps]),
        )

    def _steps(
        self, graph: fx.Graph, given: list[fx.Node], maps: list[fx.Node]
    ) -> tuple[list[str], dict[fx.Node, str]]:
        """A line for each step of the graph, and the variable of each; what only the next step reads is x."""
        steps = [n for n in graph.nodes if n.op != "output" and not _is_inside(n)]
        calls = [n for n in steps if n.op != "placeholder" and n.target != "size"]
        last_read = {n: i for i, call in enumerate(calls) for n in _inputs(call)} | dict.fromkeys(given, len(calls))
        is_alone = sum(n.op == "placeholder" for n in steps) == 1
        names: dict[fx.Node, str] = {}
        lines: list[str] = []

        def text(arg: Any) -> str:
            return repr(arg) if not isinstance(arg, fx.Node) else names.get(arg) or value(arg)

        def value(node: fx.Node) -> str:
            args = [text(a) for a in node.args]
            if node.op == "call_method":
                return f"{args[0]}.{node.target}({', '.join(args[1:])})"
            if node.target is added:
                return " + ".join(args)
            called = self._path(str(node.target)) if node.op == "call_module" else getattr(node.target, "__name__", "")
            return f"{called}({', '.join(args)})"

        for node in steps:
            is_call = node in calls
            is_next = last_read.get(node, 0) <= (calls.index(node) + 1 if is_call else 0)
            short = re.sub(r"stages_(\d+)_(layers_)?", r"s\1_", node.name)
            name = "x" if is_next and (is_call or (node.op == "placeholder" and is_alone)) else short
            lines += [f"{name} = {value(node)}"] * (node.op != "placeholder")
            names[node] = name
            lines += [f"maps.append({text(m)})" for m in maps if node in (m, *_inputs(m))]
        return lines, names

    def _looped(self, steps: str) -> str:
        """The steps, with a loop for the layers of a stage that run in a row."""
        depths = [len(stage.layers) for stage in self.arch.stages]

        def loop(row: re.Match[str]) -> str:
            if not row[0].count("\n") == depths[int(row[2])] > 1:
                return row[0]
            return f"x = {row[3]}\n" * (row[3] != "x") + f"for layer in {row[1]}:\n    x = layer(x)\n"

        return re.sub(r"x = (self\.stages\[(\d+)\]\.layers)\[0\]\((\w+)\)\n(?:x = \1\[\d+\]\(x\)\n)*", loop, steps)

    def _path(self, name: str) -> str:
        """A module's path as Python: `self.stages[2].layers[5]`, `self.skips[0]["2"]`."""
        text, here = "self", self.tree
        for part in name.split("."):
            text += f"[{part}]" if _is_list(here) else f".{part}" if part.isidentifier() else f'["{part}"]'
            here = here[part]
        return text


def _indented(lines: list[str]) -> str:
    return textwrap.indent("\n".join(lines), " " * 8)


def _output(graph: fx.Graph) -> Any:
    return next(n for n in graph.nodes if n.op == "output").args[0]


def _is_inside(node: fx.Node) -> bool:
    """Whether a value is written inside what reads it."""
    to_nchw = node.target == "permute" and node.args[1:] == (0, 3, 1, 2)
    return to_nchw or node.name.endswith("_given") or getattr(node.target, "__name__", "") in ("fit_map", "token_map")


def _inputs(node: fx.Node) -> Iterator[fx.Node]:
    """The steps whose values are in the line of this one."""
    for read in node.all_input_nodes:
        if _is_inside(read):
            yield from _inputs(read)
        else:
            yield read


def shapes_given(arch: Architecture) -> str:
    """What a network gives, in the letters of its shapes."""
    shapes = {name: head.last.out_shape for name, head in arch.heads.items()}
    letters = {name: "logits_BK" if shape.positions == 1 else "logits_BKHW" for name, shape in shapes.items()}
    return ", ".join(f"{name} {said}" for name, said in letters.items()) if arch.plan.names_outputs else letters["head"]


def last_rate(rates: tuple[float, ...]) -> float:
    """The rate to which drop path rises linearly over the layers; 0 if it does not."""
    last, steps = round(rates[-1], 12), len(rates) - 1
    rises = steps > 0 and last > 0 and all(r == last * i / steps for i, r in enumerate(rates))
    return last if rises else 0.0


def _is_list(parts: dict[str, Any]) -> bool:
    """Whether a container's modules are numbered from 0."""
    return list(parts) == [str(i) for i in range(len(parts))]


def _nested(part: Any) -> str:
    """A module, or a container: a list of modules, of stages, or modules by name."""
    if isinstance(part, str):
        return part
    texts = {name: _nested(inner) for name, inner in part.items()}
    if _is_list(texts):
        return f"nn.ModuleList({_in_a_loop(list(texts.values())) or '[' + ', '.join(texts.values()) + ']'})"
    if all(name.isidentifier() for name in texts):
        return f"Stage({', '.join(f'{name}={text}' for name, text in texts.items())})"
    return f"nn.ModuleDict({{{', '.join(f'{json.dumps(name)}: {text}' for name, text in texts.items())}}})"


def _in_a_loop(texts: list[str]) -> str:
    """One expression for several layers in a row that differ in nothing but their rates."""
    rates = [re.findall(r"rates\[(\d+)\]", text) for text in texts]
    alike = {re.sub(r"rates\[\d+\]", "rate", text) for text in texts}
    if len(alike) > 1 or len(texts) < 2 or any(len(set(numbers)) > 1 for numbers in rates):
        return ""
    if not rates[0]:
        return f"{texts[0]} for _ in range({len(texts)})" if len(texts) > 2 else ""
    return f"{alike.pop()} for rate in rates[{rates[0][0]}:{int(rates[-1][0]) + 1}]"
