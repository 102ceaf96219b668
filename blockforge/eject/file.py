"""The whole file: licence, docstring, imports, the blocks that the network uses, and the network."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.sites import AggregateSite, WindowInSite, WindowOutSite
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import is_leaf_on_nchw
from blockforge.eject.backbone import BackboneText
from blockforge.eject.collect import Closure
from blockforge.eject.facts import Facts, options
from blockforge.eject.layout import WIDTH
from blockforge.eject.network import kinds
from blockforge.eject.source import PACKAGE, Definition, External, folded
from blockforge.eject.text import Text
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
STAGE = '''\
class Stage(nn.Module):
    """The modules of a stage, by name."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
'''
MODULES, MAPS = "blockforge.compiler.lowering.modules", "blockforge.compiler.maps"
OWN = {External("torch", None, "torch"), External("torch", "Tensor", "Tensor"), External("torch", "nn", "nn")}
CLASS = "Backbone"


def eject(model: Backbone) -> str:
    """The network as a Python file without any import of ours.

    `Backbone()` in it has the `state_dict` keys of the built model and starts from the same distributions; with
    equal weights it gives the same outputs.
    """
    with folded(Facts(model)):
        text = _written(model.arch)
    # Operators that the file registers with torch are its own: two of one name cannot live in a process.
    return text.replace(f"{PACKAGE}::", f"ejected_{model.arch.hash[:8]}::")


def _written(arch: Architecture) -> str:
    closure = _closure(arch)
    layer_kinds, where = kinds(arch, closure.kept_names)
    text = Text(closure, {CLASS, "Stage", *(k.name for k in layer_kinds)})
    backbone = BackboneText(arch, where, closure.kept_names)
    parts = [f"{LICENSE}{_docstring(arch)}\n\n{_imports(text.externals | OWN)}"]
    for purpose, definitions in text.sections():
        parts += _section(purpose, definitions)
    if not re.match(r"(# .*\n)*(@|class |def )", parts[1]):  # what is no block stands nearer to the imports
        parts[:2] = ["\n\n".join(parts[:2])]
    network = [STAGE.rstrip(), *("\n".join(k.function()) for k in layer_kinds)]
    network.append(
        "\n".join(
            [
                f"class {CLASS}(nn.Module):",
                *_class_doc(arch),
                "",
                *backbone.init(),
                "",
                *backbone.forward(),
                "",
                *FORWARD.splitlines(),
            ]
        )
    )
    parts += _section(f"The network: {arch.name}.", network)
    parts.append(_main(arch))
    return "\n\n\n".join(parts) + "\n"


def _closure(arch: Architecture) -> Closure:
    """What the nodes of the graph use."""
    modules = {"Layer", "Branch", "image_map"}
    fits = any(node.shapes.rounding is not None for node in arch.nodes.values())
    values: list[Any] = []
    for node in arch.nodes.values():
        match node.site:
            case WindowInSite():
                modules.add("WindowIn")
            case WindowOutSite():
                modules.add("WindowOut")
            case AggregateSite():
                modules.add("Fuse")
        place = node.shapes.placed.place if node.shapes.placed is not None else ()
        values += [node.block, node.norm, *options(node).values(), *place, node.shapes.in_shape]
    roots = [Definition(MODULES, m) for m in sorted(modules)]
    if any(is_leaf_on_nchw(node) for node in arch.nodes.values()):
        roots.append(Definition("blockforge.blocks.leaves", "on_nchw"))
    if fits:
        roots.append(Definition(MAPS, "fit_map"))
    closure = Closure(roots, methods=["build"])
    for value in values:
        closure.values(value)
    closure.settle()
    return closure


FORWARD = """\
    def forward(self, x: Tensor) -> Tensor:
        \"\"\"x_BCHW -> logits_BK.\"\"\"
        return self.head(self.forward_features(x)[-1].permute(0, 2, 3, 1))"""


def _docstring(arch: Architecture) -> str:
    size = arch.plan.input
    lines = textwrap.wrap(
        f"{arch.name}, an image classifier in plain PyTorch: {format_count(arch.params)} parameters, "
        f"{format_count(arch.macs)} multiply-adds for an image of {size.channels}x{size.size[0]}x{size.size[1]}.",
        WIDTH - 8,
    )
    note = textwrap.wrap(
        f"Written by `blockforge eject {arch.name}`; it needs torch alone. Weights that blockforge saved for this "
        "network load with `load_state_dict`.",
        WIDTH - 8,
    )
    shapes = ["Maps inside the network are channels-last. Letters of shapes: B batch, H height, W width, C channels."]
    return '"""' + "\n".join([*lines, "", *note, "", *shapes]) + '\n"""'


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


def _section(purpose: str, definitions: list[str]) -> list[str]:
    """Definitions under a comment that says what they are."""
    first, *rest = definitions
    comment = "\n".join(f"# {line}" for line in textwrap.wrap(purpose, WIDTH - 2))
    return [f"{comment}\n{first}", *rest]


def _class_doc(arch: Architecture) -> list[str]:
    return [f'    """{arch.name}: x_BCHW -> logits_BK."""']


def _main(arch: Architecture) -> str:
    size = arch.plan.input
    return f"""\
if __name__ == "__main__":
    model = {CLASS}().eval()
    image = torch.randn(1, {size.channels}, {size.size[0]}, {size.size[1]})
    with torch.inference_mode():
        logits = model(image)
    count = sum(p.numel() for p in model.parameters())
    print(f"{{count:,}} parameters, {{tuple(image.shape)}} -> {{tuple(logits.shape)}}")"""
