"""The classes that a file has for layers and composed blocks: one for all that differ in values alone."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from keyword import iskeyword

from torch import nn

from blockforge.blocks.compose.head import ComposedHead
from blockforge.blocks.compose.module import Composed
from blockforge.compiler.graph.units import Layer
from blockforge.eject.recorded import VALUE
from blockforge.eject.rewriting import rewritten

RATES = "rates["
"""How the drop path of a layer begins that the file computes."""


def composed_classes(modules: dict[str, nn.Module], taken: set[str]) -> tuple[list[str], dict[str, str]]:
    """The classes of composed blocks, one for each code that runs, and the name for each `id`. A class is named after
    the place where it first stands: its layer's branch, or what the network calls it."""
    texts: dict[str, str] = {}
    names: dict[str, str] = {}
    for path, module in ((p, m) for root, top in modules.items() for p, m in top.named_modules(prefix=root)):
        if isinstance(module, Composed):
            code = _forward(module)
            if code not in texts:
                label = [part for part in path.split(".") if part != "op" and not part.isdigit()][-1]
                texts[code] = unique(class_name(label), taken)
            names[str(id(module))] = texts[code]
    return [f"class {name}(Parts):\n{code}" for code, name in texts.items()], names


def _forward(module: Composed) -> str:
    """What a composed block runs, without what only speed needs."""
    lines = [line for line in rewritten(module.code).splitlines()[1:] if not line.endswith(" = None")]
    gives = "y_BHWC"
    if isinstance(module, ComposedHead):
        is_map = module.program.out_shape.positions > 1
        lines[-1] += ".permute(0, 3, 1, 2)" if is_map else ".flatten(1)"
        gives = "logits_BKHW" if is_map else "logits_BK"
    lines = [f'"""x_BHWC -> {gives}."""', "", "def forward(self, x: Tensor) -> Tensor:", *lines]
    return "\n".join(f"    {line}" if line else "" for line in lines)


def class_name(label: str) -> str:
    name = re.sub(r"\W", "", label.title().replace("_", ""))
    return name if name.isidentifier() and not iskeyword(name) else f"Block{name}"


def unique(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken; then it is."""
    free = next(n for i in range(1, 10**6) if (n := name if i == 1 else f"{name}{i}") not in taken)
    taken.add(free)
    return free


@dataclass
class LayerClass:
    """Layers of one class: by its path, what makes the branches of each. Their texts are equal but for values."""

    name: str
    block: str
    fed: str | None
    layers: dict[str, dict[str, str]] = field(default_factory=dict)

    def columns(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each value in the branches: its parameter, and what it is in each layer."""
        rows = zip(*(VALUE.findall("".join(layer.values())) for layer in self.layers.values()), strict=True)
        return [(row[0][0], tuple(value for _, value in row)) for row in rows]

    def parameters(self) -> dict[tuple[str, ...], str]:
        """The values that vary, each with the name of its parameter; equal columns share one."""
        names: dict[tuple[str, ...], str] = {}
        for name, values in self.columns():
            if (len(set(values)) > 1 or values[0].startswith(RATES)) and values not in names:
                others = sum(re.fullmatch(rf"{name}(_\d+)?", n) is not None for n in names.values())
                names[values] = f"{name}_{others + 1}" if others else name
        return names

    def lines(self) -> list[str]:
        """The class."""
        parameters, columns = self.parameters(), iter(self.columns())

        def written(_: re.Match[str]) -> str:
            values = next(columns)[1]
            return parameters.get(values, values[0])

        branches = {name: VALUE.sub(written, text) for name, text in next(iter(self.layers.values())).items()}
        args = "".join(f", {name}: {_type(values)}" for values, name in parameters.items())
        sources = ", *sources: Tensor" if "aggregate" in branches else ""
        head = [f"class {self.name}(nn.Module):", f'    """A layer of `{self.block}`."""', ""]
        body = [f"    def __init__(self{args}) -> None:", "        super().__init__()"]
        calls = ["", f"    def forward(self, x: Tensor{sources}) -> Tensor:"]
        for name, text in branches.items():
            is_plain = name.isidentifier() and not iskeyword(name)
            body.append(f"        self.{name} = {text}" if is_plain else f'        self.add_module("{name}", {text})')
            if name != "aggregate":
                path = f"self.{name}" if is_plain else f'self.get_submodule("{name}")'
                calls.append(f"        x = {path}(x{', self.aggregate(x, list(sources))' if name == self.fed else ''})")
        return [*head, *body, *calls, "        return x"]

    def call(self, i: int) -> str:
        """What builds the i-th layer of this class."""
        args = (f"{name}={values[i]}" for values, name in self.parameters().items())
        return f"{self.name}({', '.join(args)})".replace("(dim=", "(", 1)


def _type(values: tuple[str, ...]) -> str:
    kinds = {float if v.startswith(RATES) else type(ast.literal_eval(v)) for v in values}
    names = {tuple: "tuple[int, ...]", type(None): "None"}
    return " | ".join(sorted(names.get(kind, kind.__name__) for kind in kinds))


def layer_classes(
    layers: list[Layer], modules: dict[str, nn.Module], made: dict[int, str], rates: list[str]
) -> tuple[list[LayerClass], dict[str, str]]:
    """The classes of layers, and what makes each layer, by its path. `rates`: the drop path of each layer, where the
    file computes it."""
    classes: dict[str, LayerClass] = {}
    for number, layer in enumerate(layers):
        branches = {name: made[id(branch)] for name, branch in modules[layer.name].named_children()}
        if rates:
            rate = f"«drop_path:{rates[number]}»"
            branches = {name: text.replace(rate, f"«drop_path:{RATES}{number}]»") for name, text in branches.items()}
        key = VALUE.sub(r"«\1»", f"{layer.block} {branches} {layer.fed}")
        if key not in classes:
            others = sum(known.block == layer.block for known in classes.values())
            name = class_name(layer.block).removesuffix("Layer") + "Layer" + (str(others + 1) if others else "")
            classes[key] = LayerClass(name, layer.block, layer.fed)
        classes[key].layers[layer.name] = branches
    calls = {path: known.call(i) for known in classes.values() for i, path in enumerate(known.layers)}
    return list(classes.values()), calls
