"""`blockforge export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blockforge.cli._output import (
    DeployOption,
    InitSeedOption,
    JsonOption,
    KeyOption,
    PrefixOption,
    SetOption,
    SpecArgument,
    WeightsOption,
    chosen,
    console,
    listed,
    print_json,
)
from blockforge.files import write_atomically

if TYPE_CHECKING:
    from blockforge.export import Axis, Exported


def export(
    spec: SpecArgument,
    format: Annotated[
        Literal["onnx", "export"], typer.Option("--format", help="onnx, or export: a program of torch.export (.pt2).")
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; by default NAME.onnx or NAME.pt2 here."),
    ] = None,
    weights: WeightsOption = None,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    out_indices: Annotated[
        str | None,
        typer.Option(
            "--out-indices",
            metavar="STAGES",
            help="Give the maps of these stages in place of logits, as in 0,1,2,3; outputs map_0, map_1, ...",
        ),
    ] = None,
    dynamic: Annotated[
        str, typer.Option(metavar="AXES", help="What may vary from call to call: batch; batch,hw; hw; none.")
    ] = "batch",
    deploy: DeployOption = False,
    overrides: SetOption = None,
    seed: InitSeedOption = None,
    json: JsonOption = False,
) -> None:
    """Write a model as an ONNX file, or as a program of torch.export.

    The file holds the weights and nothing but standard operators, scans included. It is run beside
    the model, also at other sizes where these may vary, and appears only if the outputs agree to
    1e-4. The model is exported as for inference, in float32.

    \b
    Examples:
      blockforge export smt_t --weights smt_tiny.pth
      blockforge export vmamba_tiny_s1l8 --dynamic batch,hw -o vmamba.onnx
      blockforge export smt_t --weights smt_tiny.pth --out-indices 1,2,3 -o backbone.onnx
      blockforge export mambavision_t --format export --set input.size=256
      blockforge export repvgg_a0 --weights repvgg.pth --deploy
    """
    from dataclasses import asdict

    from rich.console import Console

    from blockforge.extras import need

    if format == "onnx":
        need("export", "onnx", "onnxruntime", "onnxscript")
    axes, stages = _axes(dynamic), _stages(out_indices)
    import blockforge as bf
    from blockforge.export import SUFFIXES, write_export

    arch = bf.compile(spec, overrides)
    file = output if output is not None else Path(f"{arch.name}{SUFFIXES[format]}")
    done: list[Exported] = []
    form = arch.deployed if deploy else arch
    with Console(stderr=True).status("building the model") as status:

        def write(path: Path) -> None:
            model = bf.build(arch, weights=chosen(weights, key, prefix), seed=seed)
            model = bf.deploy(model) if deploy else model
            if stages is not None:
                model = model.features(stages)
            done.append(write_export(model, path, format, axes, say=status.update))

        write_atomically(file, write)
    if json:
        print_json({"name": arch.name, "hash": arch.hash, "form": form.form, "file": str(file), **asdict(done[0])})
    else:
        if deploy:
            console().print(f"{form.title}: {form.totals}")
        _print(done[0], file, trained=weights is not None)


def _axes(text: str) -> tuple[Axis, ...]:
    known: tuple[Axis, ...] = ("batch", "hw")
    words = listed(text, (*known, "none"), "--dynamic")
    return tuple(a for a in known if a in words)


def _stages(text: str | None) -> tuple[int, ...] | None:
    """`0,1,3` -> those stages. Whether the network has them is the network's to say."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' are no numbers of stages; write 0,1,2,3", param_hint="--out-indices"
        ) from None


def _print(exported: Exported, file: Path, trained: bool) -> None:
    from blockforge.console.text_table import Label, Number, TextTable
    from blockforge.units import format_bytes

    out = console()
    table = TextTable(Label("images"), Number("relative error"))
    for check in exported.checks:
        table.add_row("x".join(map(str, check.shape)), f"{check.error:.1e}")
    out.print(table)
    version = f", opset {exported.opset}" if exported.opset is not None else ""
    gives = f", gives {', '.join(exported.outputs)}" if exported.outputs != ("logits",) else ""
    held = f"{exported.nodes} operators{version}, {format_bytes(exported.bytes)}"
    out.print(f"takes {' x '.join(map(str, exported.shape))}{gives}; {held}")
    if not trained:
        out.print("the weights are freshly initialised; --weights FILE gives others")
    out.print(f"written to {file}", soft_wrap=True)
