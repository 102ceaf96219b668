"""The whole file: licence, docstring, imports, the blocks that the network uses, and the network."""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from collections.abc import Iterable

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.units import Layer
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.eject.classes import composed_classes, layer_classes
from blockforge.eject.layout import WIDTH, layout
from blockforge.eject.network import CLASS, Network, last_rate
from blockforge.eject.recorded import DEFINITION, VALUE, recorded
from blockforge.eject.source import PLAIN, Definition, External, Reached, is_ours, read_names, source
from blockforge.units import format_count

LICENSE = "# Copyright The BlockForge authors.\n# SPDX-License-Identifier: Apache-2.0\n"
OWN = {External("torch", "", "torch"), External("torch", "Tensor", "Tensor"), External("torch", "nn", "nn")}
MAIN = """\
if __name__ == "__main__":
    model = Backbone().eval()
    image = torch.randn(1, {size.channels}, {size.size[0]}, {size.size[1]})
    with torch.inference_mode():
        logits = model(image)
    count = sum(p.numel() for p in model.parameters())
    print(f"{{count:,}} parameters, {{tuple(image.shape)}} -> {shapes}")
"""


def eject(model: Backbone) -> str:
    """The network as a Python file without any import of ours.

    `Backbone()` in it has the `state_dict` keys of the built model and starts from the same distributions; with
    equal weights it gives the same outputs.
    """
    for read in (source, is_ours):
        read.cache_clear()  # a plugin may have been loaded since
    arch = model.arch
    modules, made = recorded(arch)
    composed, composed_names = composed_classes(modules, {CLASS, "Stage", "Parts"})
    made = {i: re.sub(r"@composed\.(\d+)", lambda m: composed_names.get(m[1], ""), text) for i, text in made.items()}
    layers = [unit for unit in arch.units if isinstance(unit, Layer)]
    rates = [repr(rate) for rate in arch.plan.drop_path] if last_rate(arch.plan.drop_path) else []
    kinds, calls = layer_classes(layers, modules, made, rates)
    built = {path: calls.get(path) or made[id(module)] for path, module in modules.items()}
    for head in arch.heads.values():
        built[head.name] = built[head.name].replace(f"«num_classes:{arch.plan.num_classes}»", "num_classes")
    network = Network(arch, {path: VALUE.sub(r"\2", text) for path, text in built.items()})
    texts = ["\n".join(kind.lines()) for kind in kinds] + [network.text()]
    used = [Definition(PLAIN, "Stage"), *(Definition(f.__module__, f.__name__) for f in network.functions())]
    used += [Definition(*pair) for pair in DEFINITION.findall(" ".join(texts))]
    targets = {d: _target(d) for d in used}
    asked = set().union(*(read_names(text)[1] for text in composed))
    reached = Reached([t for t in targets.values() if isinstance(t, Definition)], asked)
    externals = OWN | reached.externals | {t for t in targets.values() if isinstance(t, External)}
    taken = {CLASS, *composed_names.values(), *(kind.name for kind in kinds), *(e.alias for e in externals)}
    names = reached.named(taken)
    called = {d: names[t] if isinstance(t, Definition) else t.alias for d, t in targets.items()}
    lines = DEFINITION.sub(lambda match: called[Definition(*match.groups())], "\n\n\n".join(texts)).split("\n")
    needs = sorted({e.module.partition(".")[0] for e in externals} - sys.stdlib_module_names)[::-1]
    network_text = "\n".join(broken for line in lines for broken in layout(line))
    parts = [f"{LICENSE}{_docstring(arch, needs)}\n\n{_imports(externals)}"]
    parts += [*reached.texts.values(), *composed, network_text, _main(arch)]
    return "".join(_spaced(before, part) for before, part in itertools.pairwise(["", *parts])) + "\n"


def _target(d: Definition) -> Definition | External:
    target = source(d.module).resolve(d.name) if is_ours(d.module) else None
    return target or External(d.module, d.name, d.name)


def _spaced(before: str, part: str) -> str:
    """A part behind another: two lines lie between, one where both are short assignments or imports."""
    is_block = any(re.search(r"^(class|def|if|@)", text, re.MULTILINE) for text in (before, part))
    return ("\n\n\n" if is_block else "\n\n") * bool(before) + part.rstrip("\n")


def _docstring(arch: Architecture, needs: list[str]) -> str:
    size = arch.plan.input
    is_dense = any(head.last.out_shape.positions > 1 for head in arch.heads.values())
    about = (
        f"{arch.title}, {'a network for dense prediction' if is_dense else 'an image classifier'} in plain PyTorch: "
        f"{format_count(arch.params)} parameters, {format_count(arch.macs)} multiply-adds for an image of "
        f"{size.channels}x{size.size[0]}x{size.size[1]}.",
        f"Written by `blockforge eject {arch.name}{' --deploy' if arch.trained is not None else ''}`; it needs "
        f"{' and '.join(needs)} alone. Weights that blockforge saved for this network load with `load_state_dict`.",
        "Maps inside the network are channels-last. Letters of shapes: B batch, H height, W width, C channels.",
    )
    return '"""' + textwrap.fill(" ".join(about), WIDTH - 8) + '\n"""'


def _imports(externals: Iterable[External]) -> str:
    """Import statements, Python's own modules first."""
    blocks = ["from __future__ import annotations"]
    for standard in (True, False):
        here = [e for e in externals if (e.module.partition(".")[0] in sys.stdlib_module_names) == standard]
        plain = {f"import {e.module}{'' if e.alias == e.module else f' as {e.alias}'}" for e in here if not e.name}
        named: dict[str, set[str]] = {}
        for e in here:
            if e.name and e.module != "__future__":
                named.setdefault(e.module, set()).add(e.name if e.alias == e.name else f"{e.name} as {e.alias}")
        lines = sorted(plain)
        lines += [f"from {module} import {', '.join(sorted(named[module], key=_order))}" for module in sorted(named)]
        blocks += ["\n".join(lines)] * bool(lines)
    return "\n\n".join(blocks)


def _order(name: str) -> tuple[int, str]:
    """Constants, classes, functions, as linters sort them."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


def _main(arch: Architecture) -> str:
    is_named = arch.plan.names_outputs
    shapes = "{ {name: tuple(y.shape) for name, y in logits.items()} }" if is_named else "{tuple(logits.shape)}"
    return MAIN.format(size=arch.plan.input, shapes=shapes)
