"""Broken inputs for the fuzz campaign and its short form in the suite: texts, trees, specs composed at random, JSON.

All chance comes from the `random.Random` that is given, so a seed names its inputs.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockforge.blocks import registry
from blockforge.spec.yaml.loader import load_text
from blockforge.testing.examples import field_values

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "specs", "specs/narrow", "specs/ablations", "search/spaces", "tests/specs", "tests/specs/invalid",
    "tests/specs/invalid/parts", "tests/data/design", "tests/data/search", "tests/parity", "tests/compose/small",
)  # fmt: skip

SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 224, 1000, 16384, 65536, 2**31, 2**63 - 1, -(2**63), 1.5, -0.0, 0.1,
    1e308, 1e-320, "", " ", "none", "all", "$x", "$", "$$", "$choice", "a" * 300, "a/" * 3000, "../" * 40, "\0",
    "a\0b.yaml", "é", "\u202e", "sam", "mlp", "layer_norm", "conv_stem", "concat", "(a b)*", "a*999", "a b* c",
    "smt_t", "smt_t.yaml", "/dev/zero", "/", ".", "-", "stages.0.dim", "stages.1.dim >= stages.0.dim",
    "M == 'all' or S <= M", "$(2 * w)", "$(layer + 1)", "$(in // 2)", "$(near(stage * 8.5, 8) if depth > 1 else none)",
    "$(w[0][layer])", "$((", "$('dw*')", "1/0", "9**9**9", "(" * 200, "not " * 300, float("nan"), float("inf"), 10**30,
]  # fmt: skip
PARTS: list[Any] = [
    [], {}, [[]], [None], {"": 1}, {1: 2}, {1: 2, "b": 3}, {None: 1}, {True: 1, "a": 2}, {1.5: 2}, {(1, 2): 3},
    {"$choice": [1, 2]}, {"$choice": []}, {"$choice": 3}, {"$choice": {}}, {"$chioce": [1]}, {"$int": [1, 4]},
    {"$int": [4, 1]}, {"$int": [1, 10**12, 7]}, {"$float": [0, 1]}, {"$log": [0, 1]}, {"$choice": ["a"], "x": 1},
    {"$choice": [{"$choice": [1, {"$int": [1, 2]}]}, "none"]}, {"op": "sam"}, {"op": None}, {"op": {"op": "sam"}},
    {"from": 0, "op": "relu"}, {"from": [0, 1]}, [0, "stem", {"from": "a", "op": ["relu"]}],
    {"op": "concat", "dim": "$out", "resize": "nearest"},
    {"op": "sam", 1: 2, "num_heads": {"$int": [1, 9]}}, {"rule": "dense", "aggregate": "concat"},
    {"rule": "edges", "edges": [[0, 1], [-1, 0], [5, 2]], "aggregate": "concat"}, [1, "a", None], object, b"x",
    {1, 2},
]  # fmt: skip
COMPOSED = re.compile(
    r"^(?:define|use):|op: (?:\[|parallel|split|residual|tiles|graph|repeat)|: \[\{op: ", re.MULTILINE
)
"""What a text says in which ops stand inside ops."""
KEYS: list[Any] = [
    "dim", "depth", "layers", "op", "norm", "scale", "connect", "rule", "aggregate", "window", "let", "stages",
    "blocks", "skips", "from", "to", "join", "stage_norm",
    "features", "stem", "head", "extends", "blockforge", "name", "$choice", "about", "require",
    "input", "size", "drop_path", "defaults", "heads", "classifier", "", "a" * 200, 0, 1, -1, True, None, 1.5,
]  # fmt: skip
PIECES = (
    *"\t\n\r\0:{}[],&*!|>'\"%@`#?-$~ ", "\ufeff", "\u2028", "\ud800", "é", "---\n", "...\n", "<<: ",
    "!!python/object:os.system ", "&a ", "*a", "? ", "- - -", "0x", "1e999", "{$choice: [", "$",
)  # fmt: skip


def corpus() -> list[str]:
    """Every YAML text that the repository holds."""
    files = [f for folder in FOLDERS for f in sorted((ROOT / folder).glob("*.yaml"))]
    return [f.read_text(encoding="utf-8") for f in files]


def composed_corpus() -> list[str]:
    """Those among them that make blocks of blocks."""
    return [text for text in corpus() if COMPOSED.search(text)]


def as_yaml(value: Any) -> str:
    """A value in YAML's flow style; JSON is that."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return "[1, {a: ]"


def broken_text(rng: random.Random, texts: list[str]) -> str:
    """A text with characters, tokens or lines of it changed."""
    text = rng.choice(texts)
    for _ in range(rng.randint(1, 4)):
        text = rng.choice((_characters, _token, _token, _token, _lines))(rng, text, texts)
    return text


def _characters(rng: random.Random, text: str, texts: list[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(PIECES) * rng.choice((0, 1, 1, 2, 60)) + text[at + rng.choice((0, 0, 1, 5, 200)) :]


def _token(rng: random.Random, text: str, texts: list[str]) -> str:
    found = list(re.finditer(r"[\w.$*()-]+", text))
    if not found:
        return text
    token, other = rng.choice(found), rng.choice(re.findall(r"[\w.$*()-]+", rng.choice(texts)) or [""])
    new = rng.choice((other, as_yaml(rng.choice(SCALARS)), as_yaml(rng.choice(PARTS))))
    return text[: token.start()] + new + text[token.end() :]


def _lines(rng: random.Random, text: str, texts: list[str]) -> str:
    lines = text.splitlines() or [""]
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(5)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines.insert(i, lines[j])
    elif how == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 3:
        lines[i] = " " * rng.randint(0, 9) + lines[i].lstrip()
    else:
        lines[i:] = rng.choice(texts).splitlines()[j:]
    return "\n".join(lines) + "\n"


def broken_tree(rng: random.Random, trees: list[Any]) -> Any:
    """A spec as Python data with parts of it replaced, removed, renamed or taken from another."""
    tree = copy.deepcopy(rng.choice(trees))
    for _ in range(rng.randint(1, 4)):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = rng.choice(places)
        how = rng.randrange(8)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[rng.choice(KEYS)] = holder.pop(key)
        elif how == 2:
            other, at = rng.choice(list(_places(rng.choice(trees))) or [(holder, key)])
            holder[key] = copy.deepcopy(other[at])
        elif how == 3 and isinstance(holder, dict):
            holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(SCALARS + PARTS))
        elif how == 4:
            for _ in range(rng.choice((2, 40, 200))):
                holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        else:
            holder[key] = copy.deepcopy(rng.choice(SCALARS if how < 7 else PARTS))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value in a tree."""
    todo = [tree]
    while todo:
        value = todo.pop()
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield value, key
            todo.append(value[key])


def trees(texts: list[str]) -> list[Any]:
    """The texts that are specs, as data."""
    found = (load_text(text).tree for text in texts)
    return [t for t in found if isinstance(t, dict) and ("stages" in t or "extends" in t)]


def composed(rng: random.Random) -> dict[str, Any]:
    """A spec that is right by its form: blocks, their parameters and widths are drawn without looking at each other."""
    dims = [rng.choice((8, 12, 16, 24, 32, 48)) for _ in range(rng.randint(1, 3))]
    size: Any = rng.choice((32, 48, 56, 64, [33, 47], [64, 32], 224))
    blocks = {name: [_branch(rng) for _ in range(rng.randint(1, 3))] for name in "ab"}
    stages = [_stage(rng, dim) for dim in dims]
    spec: dict[str, Any] = {
        "blockforge": 1, "name": "composed", "input": {"size": size, "channels": rng.choice((1, 3, 4))},
        "num_classes": rng.choice((0, 1, 10)), "drop_path": rng.choice((0.0, 0.2, {"constant": 0.1})),
        "blocks": blocks, "stem": _op(rng, "stem"), "downsample": _op(rng, "downsample"), "stages": stages,
        "head": _op(rng, "head"),
    }  # fmt: skip
    if rng.random() < 0.3:
        spec["stage_norm"] = _op(rng, "norm")
    if rng.random() < 0.3:
        other = rng.choice(("logits", "none", ["relu", "logits"], [{"op": "resize", "scale": 2}, "logits"]))
        spec["heads"] = {"a": spec.pop("head"), "b": other}
    if len(dims) > 1 and rng.random() < 0.3:
        spec["skips"] = [
            {"from": rng.randrange(len(dims)), "to": [rng.randrange(len(dims))], "op": _op(rng, "downsample")}
        ]
    return spec


def _stage(rng: random.Random, dim: int) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "dim": dim,
        "depth": rng.randint(1, 4),
        "layers": rng.choice(("a", "(a b)*", "a* b*", "b")),
    }
    if rng.random() < 0.3:
        stage["window"] = rng.choice((1, 3, 7, 100))
    if rng.random() < 0.4:
        rule = rng.choice(
            ({"rule": "dense"}, {"rule": "sparx", "stride": rng.randint(1, 3), "window": rng.choice((1, "all"))})
        )
        stage["connect"] = {**rule, "aggregate": _op(rng, "aggregator")}
    return stage


def _branch(rng: random.Random) -> dict[str, Any]:
    branch = _op(rng, *rng.choice((("mixer",), ("ffn",), ("mixer", "ffn"))))
    branch["norm"] = rng.choice(("none", _op(rng, "norm")))
    branch["scale"] = rng.choice(("none", 0.5, {"skip": 1.0}))
    return branch


def of_blocks(rng: random.Random) -> dict[str, Any]:
    """A composed spec, with ops of ops in it; widths, names and members are drawn without looking at each other."""
    spec = composed(rng)
    spec["define"] = {
        name: {"params": {"a": "relu", "n": 2}, "body": _of_ops(rng, 2, *inner)}
        for name, inner in (("f", ("$a", "$n")), ("g", ("$a", "f", "$(n + n)")))
    }
    for key, last in (("stem", {"op": "linear", "dim": "$out"}), ("head", ["global_pool", "logits"])):
        if rng.random() < 0.3:
            spec[key] = [_of_ops(rng, 1, "f"), last]
    for branches in spec["blocks"].values():
        branches[0] = {
            "op": _of_ops(rng, 3, "f", "g"),
            "norm": "none",
            "skip": rng.choice((True, False, "$(in == out)", "f")),
        }
    return spec


def _number(rng: random.Random) -> Any:
    return rng.choice((1, 2, 3, 8, 4096, "$in", "$in", "$out", "$(2 * in)", "$(in / 3)", "$(layer + 1)"))


def _of_ops(rng: random.Random, depth: int, *names: str) -> Any:
    """An op of any form. `names`: further ops that it may name."""
    if not depth or rng.random() < 0.3:
        if names and rng.random() < 0.3:
            return rng.choice((*names, {"op": names[-1], "n": 3}, {"op": names[-1], "a": names[0]}))
        leaves = ("gelu", "layer_norm", "none", {"op": "linear", "dim": _number(rng)}, _op(rng, "mixer"))
        return rng.choice((*leaves, _op(rng, "part"), "nothing") if rng.random() < 0.3 else leaves)
    of: Any = [_of_ops(rng, depth - 1, *names) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    how = rng.choice(("chain", "parallel", "split", "residual", "tiles", "across", "repeat", "graph", "list"))
    if how == "list":
        return of
    if rng.random() < 0.2:
        of = {rng.choice(("a", "b", "c", "forward", "x.y")): op for op in of}
    if how == "graph" and rng.random() < 0.8:
        sources = ("input", "a", "c", ["input", "a"], {"from": "a", "op": "gelu"}, ["b", "b"], 3)
        of = {name: {"from": rng.choice(sources), "op": _of_ops(rng, depth - 1, *names)} for name in "abc"}
    op = {"op": how, "of": of}
    more = {
        "join": rng.choice(("sum", "concat", {"op": "attend", "num_heads": 2}, "mul")), "times": _number(rng),
        "size": rng.choice((1, 3, [2, 5])), "axis": "rows", "norm": _of_ops(rng, 0), "skip": _of_ops(rng, 0),
        "when": rng.choice((True, False, "$(in > 9)")), "dim": _number(rng), "share": True, "shift": 1,
        "count": _number(rng),
    }  # fmt: skip
    keys = {
        "parallel": ("join",), "split": ("join", "count", "share"), "residual": ("norm", "skip"),
        "tiles": ("size", "shift"), "across": ("axis",), "repeat": ("times", "share"),
    }.get(how, ())  # fmt: skip
    return op | {k: more[k] for k in (*keys, "when", "dim") if rng.random() < (0.5 if k in keys else 0.15)}


def _op(rng: random.Random, *kinds: Any) -> dict[str, Any]:
    cls = rng.choice(list(registry.blocks(*kinds).values()))
    params: dict[str, Any] = {"op": cls.op}
    for name in cls.model_fields:
        values = field_values(cls, name)
        if values and rng.random() < 0.3:
            value = rng.choice(values)
            params[name] = value.op if hasattr(value, "op") else "none" if value is None else value
    return params


def broken_json(rng: random.Random, text: str) -> bytes:
    """JSON with a value replaced, or with bytes of it changed."""
    how = rng.randrange(6)
    if how < 3:
        tree = broken_tree(rng, [json.loads(text)])
        return json.dumps(tree, default=repr, skipkeys=True).encode("utf-8", "replace")
    data = bytearray(text.encode())
    if how == 3:
        del data[rng.randrange(len(data)) :]
    elif how == 4:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    else:
        data = bytearray(
            rng.choice(
                (b"", b"null", b"[]", b"[" * 100_000, b"{" * 9, b"1" * 9000, b"NaN", b'"a"', b"\xff\xfe", b"[[1, 2]]")
            )
        )
    return bytes(data)
