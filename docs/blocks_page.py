"""The text of blocks.md: the reference of all registered blocks."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from blockforge.blocks import registry
from blockforge.blocks.base import Act, Kind, Norm
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.fields import OddKernel
from blockforge.blocks.joins.position_bias import PositionBias
from blockforge.compiler.graph.connect import RULES
from blockforge.spec.load import DEFINITIONS
from blockforge.spec.yaml.loader import load_text

HEAD = """# Building blocks

Written by `make docs` from the registered blocks; do not edit. Every block is named by `op` in a spec, with
the parameters listed here. `x_BHWC` is a map with batch, height, width and channels; a position is one of its
H * W.
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
    parts.append("## Definitions of `std`: `use: [std]`\n\n| definition | parameters |\n|---|---|")
    parts += [_definition(name, written) for name, written in std_definitions().items()]
    parts.append("\n## Connection rules: `rule` of `connect`\n")
    parts += [entry(name, rule) for name, rule in RULES.items()]
    return "\n".join(parts)


def std_definitions() -> dict[str, Any]:
    """What the packaged file defines, as it is written."""
    found: dict[str, Any] = load_text(DEFINITIONS["std"].read_text(encoding="utf-8"), "std.yaml").tree["define"]
    return found


def _definition(name: str, written: Any) -> str:
    params = written.get("params", {}) if isinstance(written, dict) else {}
    said = ", ".join(f"`{key}: {shown(value)}`" for key, value in params.items())
    return f"| `{name}` | {said or 'none'} |"


def entry(name: str, cls: type[BaseModel]) -> str:
    """One block: its docstring, with `Shape:` and the like as a list, and a table of its parameters."""
    about, _, facts = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")
    lines = [f"### `{name}`\n", about, ""]
    lines += [f"- {line}" if _is_fact(line) else f"  {line}" for line in facts.splitlines()]
    if facts:
        lines.append("")
    if cls.model_fields:
        hints = get_type_hints(cls, include_extras=True)
        lines += ["| parameter | values | default | meaning |", "|---|---|---|---|"]
        lines += [row(key, hints[key], field) for key, field in cls.model_fields.items()]
        lines.append("")
    return "\n".join(lines)


def row(name: str, annotation: Any, field: FieldInfo) -> str:
    """One parameter."""
    default = "required" if field.is_required() else shown(field.default)
    meaning = " ".join((field.description or "").split())
    return f"| `{name}` | {values(annotation)} | {default} | {meaning} |"


def shown(value: Any) -> str:
    """A default as it is written in YAML; None is what stands for a parameter that is not given."""
    if isinstance(value, Act):
        return str(value.as_parameter())
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
