"""`blockforge profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blockforge.cli._output import (
    BatchesOption,
    DeployOption,
    DeviceOption,
    JsonOption,
    SetOption,
    SpecArgument,
    ThreadsOption,
    TrainStepOption,
    console,
    print_json,
)
from blockforge.files import make_folder, write_text

if TYPE_CHECKING:
    from blockforge.compiler import Architecture
    from blockforge.console.text_table import TextTable
    from blockforge.measure.nodes import NodeTime
    from blockforge.measure.profile import Latency, Setting

_BAR = 30


def profile(
    spec: SpecArgument,
    device: DeviceOption = "cpu",
    batch: BatchesOption = "1,8",
    dtype: Annotated[str, typer.Option(help="Types, separated by commas: fp32, bf16, fp16.")] = "fp32",
    train: TrainStepOption = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Also with torch.compile.")] = False,
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="How long to time each setting.")] = 3.0,
    threads: ThreadsOption = 0,
    top: Annotated[int, typer.Option(min=0, help="How many nodes to show, the slowest first.")] = 12,
    deploy: DeployOption = False,
    overrides: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write latency.csv, nodes.csv and a coloured nodes.svg."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure latency, throughput and peak memory, and the time of every node of the graph.

    Each setting is warmed up first. The spread is (p90 - p10) / p50: where it is large, the machine was busy.

    \b
    Examples:
      blockforge profile smt_t
      blockforge profile smt_t --batch 1,8,64 --dtype fp32,bf16 --device cuda --compile
      blockforge profile my_net.yaml --train -o runs/profile
      blockforge profile repvgg_a0 --deploy
    """
    import torch

    import blockforge as bf
    from blockforge.measure.nodes import node_times
    from blockforge.measure.profile import measure, pick_device, settings

    asked, device = settings(batch, dtype, train, compiled), pick_device(device)
    if threads:
        torch.set_num_threads(threads)
    arch = bf.compile(spec, overrides)
    arch = arch.deployed if deploy else arch
    out = console()
    latencies = []
    for setting in asked:
        with out.status(f"{arch.name}: {setting}"):
            latencies.append(measure(bf.build(arch, seed=0), setting, device, seconds))
    first = asked[0]
    with out.status(f"{arch.name}: the nodes"):
        nodes = node_times(bf.build(arch, seed=0), first, device)
    if output is not None:
        _write(output, arch, latencies, nodes)
    if json:
        print_json({"latency": [f.as_dict() for f in latencies], "nodes": [n.as_dict() for n in nodes]})
        return
    out.print(_latency_table(f"{arch.title} on {device}, {torch.get_num_threads()} threads", latencies))
    if top:
        out.print(_nodes_table(first, nodes, top))


def _latency_table(title: str, latencies: list[Latency]) -> TextTable:
    from blockforge.console.text_table import Number, TextTable, Words
    from blockforge.units import format_bytes

    leaving = {"p10": 2, "p90": 4, "p99": 3, "runs": 1}
    columns = ("p50 ms", "p10", "p90", "p99", "images/s", "peak memory", "runs", "spread")
    table = TextTable(Words("setting"), *(Number(c, leaves=leaving.get(c)) for c in columns), title=title)
    for x in latencies:
        times = (f"{ms:.1f}" for ms in (x.p50_ms, x.p10_ms, x.p90_ms, x.p99_ms))
        rest = (f"{x.images_per_second:.1f}", format_bytes(x.peak_bytes), str(x.runs), f"{x.spread:.0%}")
        table.add_row(str(x.setting), *times, *rest)
    return table


def _nodes_table(setting: Setting, nodes: list[NodeTime], top: int) -> TextTable:
    from blockforge.console.text_table import Label, Number, TextTable, Words

    ordered = sorted(nodes, key=lambda n: -n.share)
    title = f"forward time of each node ({setting.batch} images, {setting.dtype}, eager)"
    table = TextTable(
        Label("node"), Label("op", leaves=3), Number("ms"), Number("share"), Number("GMACs/s", leaves=2),
        Words("", leaves=1), title=title,
    )  # fmt: skip
    for n in ordered[:top]:
        bar = "█" * round(_BAR * n.share / ordered[0].share)
        speed = f"{n.gmacs_per_second:.0f}" if n.macs else ""
        table.add_row(n.name, n.op, f"{n.ms:.2f}", f"{n.share:.1%}", speed, bar)
    if rest := ordered[top:]:
        table.add_row(f"{len(rest)} others", "", f"{sum(n.ms for n in rest):.2f}", f"{sum(n.share for n in rest):.1%}")
    return table


def _write(folder: Path, arch: Architecture, latencies: list[Latency], nodes: list[NodeTime]) -> None:
    from blockforge.console.csv_text import to_csv
    from blockforge.draw.svg import to_svg

    make_folder(folder)
    write_text(folder / "latency.csv", to_csv([f.as_dict() for f in latencies]))
    write_text(folder / "nodes.csv", to_csv([n.as_dict() for n in nodes]))
    write_text(folder / "nodes.svg", to_svg(arch, {n.name: n.share for n in nodes}))
    console().print(f"written to {folder}")
