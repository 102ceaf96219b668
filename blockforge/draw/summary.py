"""What a network costs, as tables for people: a row a stage, and a row a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import networkx as nx

from blockforge.compiler.costs.liveness import live_bytes
from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.kernels.costs import DEFAULT
from blockforge.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from blockforge.compiler.architecture import Architecture

CONVENTION = "1 MAC = 1 multiply-add; papers call these FLOPs"
_BAR = 12


def summary(arch: Architecture, layers: bool) -> Group:
    """The tables of `arch`, to be printed by rich. `layers`: with a row for every layer."""
    from rich.console import Group

    parts: list[RenderableType] = [Prose(_headline(arch), "bold"), _stage_table(arch)]
    if layers:
        parts.append(_layer_table(arch))
    parts.append(Prose(totals(arch), "bold"))
    scan = f"; {format_count(arch.scan_macs)} of them in scans" if arch.scan_macs else ""
    peak = f"live activations, one float32 image, on the {arch.backend} backend, at {arch.peak_node}"
    parts.append(Prose(f"{CONVENTION}{scan}. Peak: {peak}."))
    parts += [Prose(d.render(), "yellow") for d in arch.warnings]
    return Group(*parts)


def totals(arch: Architecture) -> str:
    """The figures of a network in one line."""
    figures = f"{format_count(arch.params)} params, {format_count(arch.macs)} MACs"
    return f"{figures}, {format_bytes(arch.activation_bytes)} peak activations, {arch.depth} layers"


def overview(arch: Architecture) -> dict[str, Any]:
    """A network's figures, beside what its paper reports."""
    reported = arch.spec.about.get("reported", {})
    figures = {
        "params": arch.params,
        "macs": arch.macs,
        "activation_bytes": arch.activation_bytes,
        "depth": arch.depth,
    }
    return {"name": arch.name, **figures, "reported": dict(reported) if isinstance(reported, dict) else {}}


def overview_table(rows: list[dict[str, Any]]) -> Group:
    """Networks that `overview` describes, a row each."""
    from rich.console import Group

    table = TextTable(
        Label("name"), Number("params"), Number("MACs"), Number("peak", leaves=2), Number("layers", leaves=1),
        Words("reported by the paper", leaves=3),
    )  # fmt: skip
    for row in rows:
        reported = ", ".join(f"{value} {name}" for name, value in row["reported"].items())
        peak = format_bytes(row["activation_bytes"])
        table.add_row(
            row["name"],
            format_count(row["params"]),
            format_count(row["macs"]),
            peak,
            str(row["depth"]),
            reported,
        )
    return Group(table, Prose(f"{CONVENTION}. Peak: live activations of one float32 image on the {DEFAULT} backend."))


def compact(names: Sequence[str]) -> str:
    """Names of layers in a row, shortened: `4x sam`, `14x sam+msa`, `2x (3x ssd + msa)`."""
    length = len(names)
    period = next(p for p in range(1, length + 1) if all(names[i] == names[i % p] for i in range(length)))
    if period == 1 or 2 * period > length:
        return " + ".join(_runs(names))
    inner = _runs(names[:period])
    body = "+".join(inner) if len(inner) == period else f"({' + '.join(inner)})"
    rest = _runs(names[: length % period])
    return " + ".join([f"{length // period}x {body}", *rest])


def _runs(names: Sequence[str]) -> list[str]:
    counted = [(name, len(list(run))) for name, run in groupby(names)]
    return [f"{count}x {name}" if count > 1 else name for name, count in counted]


def _headline(arch: Architecture) -> str:
    size = arch.plan.input
    return f"{arch.name}: image {size.channels}x{size.size[0]}x{size.size[1]}, {arch.plan.num_classes} classes"


def _stage_table(arch: Architecture) -> TextTable:
    table = TextTable(
        Label("stage"), Words("layers"), Number("dim"), Number("map"), Number("params"), Number("MACs"),
        Number("peak", leaves=2), Words("share of MACs", leaves=1),
    )  # fmt: skip
    live = live_bytes(arch.graph)
    by_stage: dict[Any, list[str]] = {}
    for name, node in arch.graph.nodes(data=True):
        by_stage.setdefault(node["kind"] if node["stage"] is None else node["stage"], []).append(name)
    by_stage.pop("input")
    for stage, names in by_stage.items():
        nodes = [arch.graph.nodes[n] for n in names]
        is_stage = isinstance(stage, int)
        pattern = compact([name for name, _ in arch.plan.stages[stage].layers]) if is_stage else nodes[0]["op"]
        shape = nodes[-1]["out_shape"]
        macs = _sum(nodes, "macs")
        table.add_row(
            str(stage), pattern, str(shape.dim), f"{shape.height}x{shape.width}",
            format_count(_sum(nodes, "params")), format_count(macs), format_bytes(max(live[n] for n in names)),
            _bar(macs, arch.macs),
        )  # fmt: skip
    return table


def _layer_table(arch: Architecture) -> TextTable:
    table = TextTable(
        Label("layer"), Label("block", leaves=3), Words("ops"), Words("map"), Number("params"), Number("MACs"),
        Number("peak", leaves=1), Words("receives", leaves=2),
    )  # fmt: skip
    live = live_bytes(arch.graph)
    for (stage, layer), names in _rows(arch.graph):
        nodes = [arch.graph.nodes[n] for n in names]
        label, block = names[0].removeprefix("stages."), ""
        if layer is not None:
            label, block = f"{stage}.{layer}", arch.plan.stages[stage].layers[layer][0]
        table.add_row(
            label, block, " + ".join(n["op"] for n in nodes), _map(nodes),
            format_count(_sum(nodes, "params")), format_count(_sum(nodes, "macs")),
            format_bytes(max(live[n] for n in names)), _received(arch.graph, nodes),
        )  # fmt: skip
    return table


def _rows(graph: nx.DiGraph) -> Iterator[tuple[tuple[Any, Any], list[str]]]:
    """The nodes of each layer, and every other node but the image by itself, in execution order."""
    names = [n for n, node in graph.nodes(data=True) if node["kind"] != "input"]
    place = {n: (graph.nodes[n]["stage"], graph.nodes[n]["layer"]) for n in names}
    for _, group in groupby(names, lambda n: n if place[n][1] is None else place[n]):
        members = list(group)
        yield place[members[0]], members


def _map(nodes: list[dict[str, Any]]) -> str:
    """The map a row works on; what it becomes, if that differs; how many windows it is cut into."""
    before, after, windows = nodes[0]["in_shape"], nodes[-1]["out_shape"], nodes[-1]["windows"]
    shown = str(before) if before == after else f"{before} -> {after}"
    return f"{shown} in {windows} windows" if windows > 1 else shown


def _received(graph: nx.DiGraph, nodes: list[dict[str, Any]]) -> str:
    """The sources of a layer's aggregator: layers by number, the stage's input as `input`."""
    sources = [s for node in nodes if node["kind"] == "aggregator" for s in node["inputs"][1:]]
    layers = [graph.nodes[s]["layer"] for s in sources]
    return ", ".join("input" if layer is None else str(layer) for layer in layers)


def _sum(nodes: list[dict[str, Any]], key: str) -> int:
    return sum(n[key] for n in nodes)


def _bar(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return f"{'█' * round(share * _BAR):<{_BAR}} {share:4.0%}"
