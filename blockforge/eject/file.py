"""The whole file: licence, docstring, imports, the blocks that the network uses, and the network."""

from __future__ import annotations

import itertools
import operator
import re
import sys
import textwrap
from collections.abc import Iterable

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.eject.collect import Definitions
from blockforge.eject.composed import Classes
from blockforge.eject.expressions import WIDTH, Definition, Expr, Func, Leaf, calls, replaced
from blockforge.eject.layers import kinds
from blockforge.eject.network import NetworkText, stage_graph
from blockforge.eject.recorded import recorded
from blockforge.eject.source import PLAIN, External, is_ours, source
from blockforge.units import format_count

LICENSE = """\
# Copyright The BlockForge authors.
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance
# with the License. You may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software distributed under the License is distributed
# on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for
# the specific language governing permissions and limitations under the License.
"""
OWN = {External("torch", None, "torch"), External("torch", "Tensor", "Tensor"), External("torch", "nn", "nn")}
CLASS = "Backbone"
_WRITTEN_OUT = ("Layer",)
"""Modules that a class of the file stands for."""


def eject(model: Backbone) -> str:
    """The network as a Python file without any import of ours.

    `Backbone()` in it has the `state_dict` keys of the built model and starts from the same distributions; with
    equal weights it gives the same outputs.
    """
    for read in (source, is_ours):
        read.cache_clear()  # a plugin may have been loaded since
    arch, made = model.arch, recorded(model.arch)
    composed = Classes(made, {CLASS, "Stage", "Parts"})
    made = composed.made
    classes = Leaf(str(arch.plan.num_classes), "num_classes")
    for head in arch.heads.values():
        made[head.name] = replaced(made[head.name], lambda v: Leaf(v.name) if v == classes else v, lambda f: f)
    functions = {n.target for n in stage_graph(arch).nodes if n.op == "call_function" and n.target is not operator.add}
    used = [c for expr in made.values() for c in _definitions(expr)]
    used += [Definition(f.__module__, f.__name__) for f in functions]
    taken = {CLASS, *composed.names.values(), *(kind.name for kind in kinds(arch, made)[0])}
    ours = {d: _found(d) for d in used if is_ours(d.module)}
    definitions = Definitions([*ours.values(), Definition(PLAIN, "Stage")], taken, composed.attributes())
    definitions.externals |= {External(d.module, d.name, d.name) for d in used if d not in ours}
    names: dict[Func, str] = {d: definitions.names[ours[d]] if d in ours else d.name for d in used}
    made = {path: replaced(expr, lambda v: v, lambda f: names.get(f, f)) for path, expr in made.items()}
    layers, where = kinds(arch, made)
    needs = sorted({e.module.partition(".")[0] for e in definitions.externals | OWN} - sys.stdlib_module_names)[::-1]
    parts = [
        f"{LICENSE}{_docstring(arch, needs)}\n\n{_imports(definitions.externals | OWN)}",
        *definitions.texts(),
        *composed.texts(),
        *("\n".join(kind.lines()) for kind in layers),
        "\n".join(NetworkText(arch, made, where).lines()),
        _main(arch),
    ]
    return "".join(_spaced(before, part) for before, part in itertools.pairwise(["", *parts])) + "\n"


def _spaced(before: str, part: str) -> str:
    """A part behind another: two lines lie between, one where both are short assignments or imports."""
    is_block = any(re.search(r"^(class|def|if|@)", text, re.MULTILINE) for text in (before, part))
    return ("\n\n\n" if is_block else "\n\n") * bool(before) + part


def _definitions(expr: Expr) -> list[Definition]:
    return [c.func for c in calls(expr) if isinstance(c.func, Definition) and c.func.name not in _WRITTEN_OUT]


def _found(d: Definition) -> Definition:
    found = source(d.module).resolve(d.name)
    assert isinstance(found, Definition), d
    return found


def _docstring(arch: Architecture, needs: list[str]) -> str:
    size = arch.plan.input
    lines = textwrap.wrap(
        f"{arch.title}, {_sort(arch)} in plain PyTorch: {format_count(arch.params)} parameters, "
        f"{format_count(arch.macs)} multiply-adds for an image of {size.channels}x{size.size[0]}x{size.size[1]}.",
        WIDTH - 8,
    )
    command = f"blockforge eject {arch.name}{' --deploy' if arch.trained is not None else ''}"
    note = textwrap.wrap(
        f"Written by `{command}`; it needs {' and '.join(needs)} alone. Weights that "
        "blockforge saved for this network load with `load_state_dict`.",
        WIDTH - 8,
    )
    shapes = ["Maps inside the network are channels-last. Letters of shapes: B batch, H height, W width, C channels."]
    return '"""' + "\n".join([*lines, "", *note, "", *shapes]) + '\n"""'


def _sort(arch: Architecture) -> str:
    maps = any(head.last.out_shape.positions > 1 for head in arch.heads.values())
    return "a network for dense prediction" if maps else "an image classifier"


def _imports(externals: Iterable[External]) -> str:
    """Import statements, Python's own modules first."""
    plain: dict[str, set[str]] = {}
    taken: dict[str, set[str]] = {}
    for e in externals:
        module, what = e.statement()
        (plain if e.name is None else taken).setdefault(module, set()).add(what)
    taken.pop("__future__", None)
    blocks = ["from __future__ import annotations"]
    for standard in (True, False):
        lines = [
            " ".join(("import", module, alias)).strip()
            for module in sorted(plain)
            if (module.split(".")[0] in sys.stdlib_module_names) == standard
            for alias in sorted(plain[module])
        ]
        lines += [
            f"from {module} import {', '.join(sorted(taken[module], key=_import_order))}"
            for module in sorted(taken)
            if (module.split(".")[0] in sys.stdlib_module_names) == standard
        ]
        if lines:
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _import_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions, as linters sort them."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


def _main(arch: Architecture) -> str:
    size = arch.plan.input
    is_named = arch.plan.names_outputs
    shapes = "{ {name: tuple(y.shape) for name, y in logits.items()} }" if is_named else "{tuple(logits.shape)}"
    return f"""\
if __name__ == "__main__":
    model = {CLASS}().eval()
    image = torch.randn(1, {size.channels}, {size.size[0]}, {size.size[1]})
    with torch.inference_mode():
        logits = model(image)
    count = sum(p.numel() for p in model.parameters())
    print(f"{{count:,}} parameters, {{tuple(image.shape)}} -> {shapes}")"""
