"""What blocks.md shows of each block beside its parameters: a line of YAML, what runs in it, a picture of its parts."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.draw.one_line import in_one_line
from blockforge.draw.opened_block import Group, groups_of, parts_alone
from blockforge.draw.panel import alone
from blockforge.spec.load import DEFINITIONS
from blockforge.spec.yaml.loader import load_text
from blockforge.testing.examples import build_on_maps, example_places

SPECS = Path(__file__).resolve().parents[1] / "specs"
FOLDER = "images/blocks"
DIM, SIDE = 64, 28
"""The map that pictures are drawn on."""
_LINE, _MOST = 88, 12
COMPOSED: dict[str, Any] = {
    "chain": {"op": "chain", "of": [{"op": "dwconv", "kernel_size": 7}, "layer_norm", "gelu"]},
    "parallel": {"op": "parallel", "of": [{"op": "dwconv", "kernel_size": 3}, {"op": "dwconv", "kernel_size": 5}]},
    "split": {"op": "split", "of": ["identity", {"op": "dwconv", "kernel_size": [1, 11]}]},
    "residual": {"op": "residual", "norm": "layer_norm", "of": {"op": "dwconv", "kernel_size": 7}, "post_act": "relu"},
    "tiles": {"op": "tiles", "size": 7, "of": [{"op": "linear", "dim": "$(3 * in)"}, {"op": "attend", "num_heads": 2}]},
    "across": {"op": "across", "axis": "rows", "of": "linear"},
    "repeat": {"op": "repeat", "times": 2, "of": [{"op": "dwconv"}, "gelu"]},
    "graph": {
        "op": "graph",
        "of": {"a": {"op": "dwconv"}, "b": {"op": "dwconv"}, "all": {"from": ["a", "b", "input"], "join": "mean"}},
    },
}
"""A small one of each op of ops."""


def line_of(name: str) -> str:
    """How a block is written: as most specs of the zoo say it with parameters, else by its name alone."""
    if name in COMPOSED:
        return flow(COMPOSED[name])
    found = _written()[name]
    return min(found, key=lambda text: (-found[text], len(text))) if found else name


def runs(cls: type[AnyOp]) -> str:
    """The modules of a block in Python, in the order they run; nothing for one that is a single module, or of parts."""
    if cls.kind in ("aggregator", "join") or issubclass(cls, OfParts):
        return ""
    for place in reversed(example_places(cls.kind)):
        try:
            op = cls()
            op.check(*place)
            with torch.device("meta"), torch.no_grad():
                module = build_on_maps(op, *place).eval()
                called = _called(module, (torch.empty(1, *place[0]),))
        except Exception:  # a block that needs parameters, or stands nowhere here
            continue
        return " > ".join(called) if 1 < len(called) <= _MOST else ""
    return ""


def _called(module: nn.Module, inputs: tuple[Any, ...]) -> list[str]:
    found: list[str] = []
    leaves = [leaf for leaf in module.modules() if not list(leaf.children()) and not isinstance(leaf, nn.Identity)]
    for leaf in leaves:
        leaf.register_forward_hook(lambda m, *_: found.append(_named(m)))
    module(*inputs)
    return found


def _named(leaf: nn.Module) -> str:
    said = type(leaf).__name__
    if isinstance(leaf, nn.Linear):
        return f"{said} {leaf.in_features} to {leaf.out_features}"
    if isinstance(leaf, nn.Conv2d):
        sides = "x".join(map(str, leaf.kernel_size))
        deep = leaf.groups == leaf.in_channels > 1
        return f"{said} {sides}{' depth-wise' if deep else f' {leaf.in_channels} to {leaf.out_channels}'}"
    return said


def pictures() -> dict[str, str]:
    """The files of FOLDER: a picture of each op of ops, of each block that is made of parts, and of each definition."""
    found = {name: alone(boxes(op)) for name, op in COMPOSED.items()}
    for name, cls in registry.BLOCKS.items():
        if issubclass(cls, OfParts) and name not in COMPOSED and cls.__module__.startswith("blockforge."):
            found[name] = alone(boxes({"op": name}))
    for name in definitions():
        found[f"std_{name}"] = alone(boxes(call(name)))
    return {f"{name}.svg": text for name, text in found.items()}


def picture(name: str, op: Any) -> str:
    """A picture in Markdown, with what it shows in words."""
    return f"![{in_one_line(boxes(op), 200)}]({FOLDER}/{name}.svg)"


def boxes(op: Any) -> list[Group]:
    """An op of ops on a map of DIM x SIDE x SIDE, opened."""
    return _boxes(json.dumps(op))


@functools.cache
def _boxes(written: str) -> list[Group]:
    op = json.loads(written)
    is_stem = isinstance(op, dict) and op["op"] in registry.blocks("stem")
    frame = {**_frame("identity"), "stem": op} if is_stem else _frame(op)
    nodes = bf.compile(frame).nodes.values()
    return groups_of(parts_alone(next(node for node in nodes if (node.name == "stem" if is_stem else node.layer == 0))))


def _frame(op: Any) -> dict[str, Any]:
    return {
        "blockforge": 1, "name": "picture", "input": {"size": 4 * SIDE}, "num_classes": 10, "use": ["std"],
        "blocks": {"b": [{"op": [op], "norm": "none", "skip": False}]},
        "stem": {"op": "conv", "dim": DIM, "kernel_size": 4, "stride": 4},
        "stages": [{"dim": DIM, "depth": 1, "layers": "b"}],
        "head": ["global_pool", "logits"],
    }  # fmt: skip


def definitions() -> dict[str, str]:
    """The definitions of `std`, each as its text in the file."""
    text = DEFINITIONS["std"].read_text(encoding="utf-8").partition("define:\n")[2]
    pieces = re.split(r"^  (?=\w)", text, flags=re.MULTILINE)[1:]
    return {piece.partition(":")[0]: f"  {piece}".rstrip() for piece in pieces}


def call(name: str) -> dict[str, Any]:
    """A definition of `std` as it is used; what it requires is a width."""
    written = load_text(DEFINITIONS["std"].read_text(encoding="utf-8"), "std.yaml").tree["define"][name]
    params = written.get("params", {}) if isinstance(written, dict) else {}
    return {"op": name, **{key: "$(in // 4)" for key, value in params.items() if value == "required"}}


@functools.cache
def _written() -> dict[str, Counter[str]]:
    """Ops with parameters as the zoo writes them, short ones, and how often."""
    found: dict[str, Counter[str]] = {name: Counter() for name in registry.BLOCKS}
    for file in sorted(SPECS.glob("*.yaml")):
        tree = load_text(file.read_text(encoding="utf-8"), file.name).tree
        for op in _ops(tree):
            name, cls = op["op"], registry.BLOCKS.get(op["op"])
            own = {
                k: _value(tree, v)
                for k, v in op.items()
                if cls is not None and (k in cls.model_fields or k in ("op", "dim"))
            }
            if cls is not None and len(own) > 1 and len(text := flow(own)) <= _LINE and _is_clear(text):
                found[name][text] += 1
    return found


def _value(tree: Any, value: Any) -> Any:
    """What a name stands for in a spec, or in a stage of it."""
    lets = [tree, *(tree["stages"] if isinstance(tree.get("stages"), list) else ())]
    names = {f"${k}": v for of in reversed(lets) for k, v in of.get("let", {}).items()}
    return names.get(value, value) if isinstance(value, str) else value


def _is_clear(text: str) -> bool:
    """Whether the names in a line are those of its place, which mean the same everywhere."""
    said = " ".join(name for found in re.findall(r"\$\(([^)]*)\)|\$(\w+)", text) for name in found)
    names = set(re.findall(r"[a-z]\w*", said))
    return names <= {"in", "out", "height", "width", "layer"}


def _ops(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if isinstance(tree.get("op"), str):
            yield tree
        for value in tree.values():
            yield from _ops(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _ops(value)


def flow(op: Any) -> str:
    """A mapping on one line."""
    text: str = yaml.safe_dump(op, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()
