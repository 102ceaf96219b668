"""What a network costs, as tables for people: a row a stage, and a row a layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from blockforge.compiler.graph.sites import ImageSite
from blockforge.compiler.graph.units import Layer, Unit
from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.draw.one_line import in_one_line
from blockforge.draw.opened_block import groups_of, is_list, parts_alone
from blockforge.draw.parts import part_tables
from blockforge.kernels.costs import DEFAULT
from blockforge.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from blockforge.compiler.architecture import Architecture
    from blockforge.compiler.graph.nodes import Node

CONVENTION = "1 MAC = 1 multiply-add; papers call these FLOPs"
_BAR = 12
_ROOM = 36
"""Characters that a list of ops takes in a row."""


def summary(arch: Architecture, layers: bool, parts: bool = False) -> Group:
    """The tables of `arch`, to be printed by rich. `layers`: with a row for every layer. `parts`: with a row for every
    part of the composed blocks."""
    from rich.console import Group

    shown: list[RenderableType] = [Prose(_headline(arch), "bold"), _stage_table(arch)]
    if layers:
        shown.append(_layer_table(arch))
    if parts:
        shown += part_tables(arch)
    shown.append(Prose(arch.totals, "bold"))
    scan = f"; {format_count(arch.scan_macs)} of them in scans" if arch.scan_macs else ""
    peak = f"live activations, one float32 image, on the {arch.backend} backend, at {arch.peak_node}"
    shown.append(Prose(f"{CONVENTION}{scan}. Peak: {peak}."))
    shown += [Prose(d.render(), "yellow") for d in arch.warnings]
    return Group(*shown)


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
    if not length:
        return "none"
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
    return f"{arch.title}: image {size.channels}x{size.size[0]}x{size.size[1]}, {arch.plan.num_classes} classes"


def _stage_table(arch: Architecture) -> TextTable:
    table = TextTable(
        Label("stage"), Words("layers"), Number("dim"), Number("map"), Number("params"), Number("MACs"),
        Number("peak", leaves=2), Words("share of MACs", leaves=1),
    )  # fmt: skip
    stages = {stage.index: stage for stage in arch.stages}
    for unit in arch.units:
        if unit.stage is None and not isinstance(unit.first.site, ImageSite):
            _add_stage(table, arch, unit.name, said(unit.first), [unit])
        elif unit.stage is not None and (stage := stages.pop(unit.stage, None)) is not None:
            name = arch.plan.stages[stage.index].name
            called = f"{stage.index} {name}" if name else str(stage.index)
            _add_stage(table, arch, called, compact([u.block for u in stage.layers]), stage.units)
    return table


def _layer_table(arch: Architecture) -> TextTable:
    table = TextTable(
        Label("layer"), Label("block", leaves=3), Words("ops"), Words("map"), Number("params"), Number("MACs"),
        Number("peak", leaves=1), Words("receives", leaves=2),
    )  # fmt: skip
    labels = {unit.name: _label(unit) for unit in arch.units}
    for above, unit in pairwise(arch.units):
        block = unit.block if isinstance(unit, Layer) else ""
        passed_by = unit.inputs != (above.name,)
        table.add_row(
            labels[unit.name], block, " + ".join(map(said, unit.nodes)), _map(unit), format_count(unit.params),
            format_count(unit.macs), format_bytes(_peak(arch, [unit])),
            _received(arch, unit) or ", ".join(labels[name] for name in unit.inputs if passed_by),
        )  # fmt: skip
    return table


def _label(unit: Unit) -> str:
    return f"{unit.stage}.{unit.index}" if isinstance(unit, Layer) else unit.name.removeprefix("stages.")


def _add_stage(table: TextTable, arch: Architecture, name: str, pattern: str, units: Sequence[Unit]) -> None:
    shape, macs = units[-1].last.out_shape, sum(u.macs for u in units)
    table.add_row(
        name, pattern, str(shape.dim), shape.sides, format_count(sum(u.params for u in units)),
        format_count(macs), format_bytes(_peak(arch, units)), _bar(macs, arch.macs),
    )  # fmt: skip


def said(node: Node) -> str:
    """A node's op; of a list what is in it, as far as there is room."""
    return in_one_line(groups_of(parts_alone(node)), _ROOM) if is_list(node) else node.op


def _peak(arch: Architecture, units: Sequence[Unit]) -> int:
    return max(arch.live_bytes[n.name] for unit in units for n in unit.nodes)


def _map(unit: Unit) -> str:
    """The map a row works on; what it becomes, if that differs; how many windows it is cut into."""
    before, after, windows = unit.first.shapes.in_shape, unit.last.out_shape, unit.last.shapes.windows
    shown = str(before) if before == after else f"{before} -> {after}"
    return f"{shown} in {windows} windows" if windows > 1 else shown


def _received(arch: Architecture, unit: Unit) -> str:
    """The sources of a layer's aggregator: layers by number, the stage's input as `input`."""
    layers = [arch.nodes[source].layer for node in unit.nodes for source in node.sources]
    return ", ".join("input" if layer is None else str(layer) for layer in layers)


def _bar(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return f"{'█' * round(share * _BAR):<{_BAR}} {share:4.0%}"
