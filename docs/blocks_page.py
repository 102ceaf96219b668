"""The text of blocks.md: the reference of all registered blocks."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import block_pictures
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from blockforge.blocks import registry
from blockforge.blocks.base import Act, Kind, Norm, Op
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.fields import OddKernel
from blockforge.blocks.joins.position_bias import PositionBias
from blockforge.compiler.graph.connect import RULES
from blockforge.described import descriptions

HEAD = """# Building blocks

Written by `make docs` from the registered blocks; do not edit. Every block is named by `op` in a spec, with
the parameters listed here; the line below its name is how the zoo mostly writes it. `x_BHWC` is a map with batch,
height, width and channels; a position is one of its H * W.

Pictures show what a block is made of, on a map of 64x28x28: what mixes positions is blue, what mixes channels
green, what joins maps purple. `Runs` names the modules of a block in Python, in order. `blockforge graph SPEC --parts
-o FILE.svg` draws the blocks of a network so.
"""
KINDS: dict[Kind, str] = {
    "mixer": "Mixers: mix positions; the `op` of a branch",
    "ffn": "FFNs: mix channels at each position; the `op` of a branch",
    "norm": "Norms: `norm` of a branch, of `defaults`, and `stage_norm`",
    "act": "Activations: `act` of a block, and `post_act` of a branch",
    "stem": "Stems: from the image to the first stage",
    "downsample": "Downsamples: between stages, and on `skips`",
    "aggregator": "Aggregators: `aggregate` of a connection rule",
    "head": "Heads: from the last map to class scores",
    "part": "Parts: the pieces that blocks are made of",
    "join": "Joins: make one map of several",
}


def page() -> str:
    """The whole reference."""
    parts = [HEAD]
    for kind, title in KINDS.items():
        parts.append(f"## {title}\n")
        ours = {n: c for n, c in registry.blocks(kind).items() if c.__module__.startswith("blockforge.")}
        parts += [entry(name, cls) for name, cls in ours.items()]
    parts.append("## Definitions of `std`: `use: [std]`\n")
    parts += [definition(name, text) for name, text in block_pictures.definitions().items()]
    parts.append("## Connection rules: `rule` of `connect`\n")
    parts += [entry(name, rule) for name, rule in RULES.items()]
    return "\n".join(parts)


def definition(name: str, text: str) -> str:
    """A packaged definition: how it is called, its text, its parts."""
    written = block_pictures.call(name)
    line = block_pictures.flow(written)
    picture = block_pictures.picture(f"std_{name}", written)
    return f"### `{name}`\n\n`{line}`\n\n```yaml\n{text}\n```\n\n{picture}\n"


def entry(name: str, cls: type[BaseModel]) -> str:
    """One block: its docstring, with `Shape:` and the like as a list, and a table of its parameters."""
    about, _, facts = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")
    lines = [f"### `{name}`\n", *_example(name, cls), about, ""]
    lines += [f"- {line}" if _is_fact(line) else f"  {line}" for line in facts.splitlines()]
    if facts:
        lines.append("")
    lines += _inside(name, cls)
    if cls.model_fields:
        hints, meanings = get_type_hints(cls, include_extras=True), descriptions(cls)
        lines += ["| parameter | values | default | meaning |", "|---|---|---|---|"]
        lines += [row(key, hints[key], field, meanings.get(key, "")) for key, field in cls.model_fields.items()]
        lines.append("")
    return "\n".join(lines)


def _example(name: str, cls: type[BaseModel]) -> list[str]:
    """A block as it is written; rules are no blocks."""
    return [f"`{block_pictures.line_of(name)}`\n"] if name in registry.BLOCKS and issubclass(cls, Op) else []


def _inside(name: str, cls: type[BaseModel]) -> list[str]:
    """A picture of a block that is made of parts, in words what runs in another."""
    if not issubclass(cls, Op):
        return []
    if name in block_pictures.COMPOSED or issubclass(cls, OfParts):
        return [block_pictures.picture(name, block_pictures.COMPOSED.get(name, {"op": name})), ""]
    runs = block_pictures.runs(cls)
    return [f"Runs: {runs}.", ""] if runs else []


def row(name: str, annotation: Any, field: FieldInfo, meaning: str) -> str:
    """One parameter."""
    default = "required" if field.is_required() else shown(field.default)
    return f"| `{name}` | {values(annotation)} | {default} | {' '.join(meaning.split())} |"


def shown(value: Any) -> str:
    """A default as it is written in YAML; None is what stands for a parameter that is not given."""
    if isinstance(value, Act):
        return str(value.as_parameter())
    if isinstance(value, Op):
        return " ".join(f"{name}={given}" for name, given in value if given is not None)
    return "absent" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def values(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What may be written for a parameter of this type."""
    if get_origin(annotation) is Annotated:
        return values(annotation.__origin__, (*annotation.__metadata__, *metadata))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return ", or ".join(values(a) for a in args if a is not type(None))
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in args)
    if origin in (list, tuple):
        count = "" if Ellipsis in args else f"{len(args)} "
        return f"list of {count}({values(args[0])})"
    if isinstance(annotation, type) and issubclass(annotation, Norm):
        return "a norm, or `none`"
    if isinstance(annotation, type) and issubclass(annotation, PositionBias):
        return "a bias of positions, or `none`"
    if isinstance(annotation, type) and issubclass(annotation, Act):
        return "an activation"
    if annotation is Bound:
        return "an op, or ops"
    if annotation is bool:
        return "`true`, `false`"
    odd = "odd " if any(m in OddKernel.__metadata__[1:] for m in metadata) else ""
    names = {int: "number" if odd else "whole number", float: "number", str: "text"}
    return " ".join(filter(None, [f"{odd}{names[annotation]}", bounds(metadata)]))


def bounds(metadata: tuple[Any, ...]) -> str:
    """`from 1 to 99`, from pydantic's constraints."""
    found: dict[str, Any] = {}
    for item in metadata:
        for constraint in getattr(item, "metadata", (item,)):
            found |= {k: getattr(constraint, k) for k in ("ge", "gt", "le", "lt") if hasattr(constraint, k)}
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    return " ".join(f"{words[k]} {v:g}" if v < 10_000 else f"{words[k]} {v}" for k, v in found.items())


def _is_fact(line: str) -> bool:
    return line.split(":")[0] in ("Shape", "Cost", "Raises", "Reference")
