"""A model written for another runtime: the file appears once what it computes was compared with the model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.export import onnx
from blockforge.export.capture import BATCH, Axis, capture, evaluating, images, input_shape, other_sizes
from blockforge.export.kinds import TOLERANCES, ExportError, as_list, output_names, value_type
from blockforge.extras import need
from blockforge.files import PatientFile, write_atomically

Format = Literal["onnx", "export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "export": ".pt2"}


@dataclass(frozen=True)
class Check:
    """One comparison with the model: images of this shape, and the relative error found."""

    shape: tuple[int, ...]
    error: float


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        shape: the input: numbers, or what may vary as text, `batch` or `32*rows`.
        outputs: names of what it gives: `logits`, or maps by their stages.
        dtype: type of the images and of what it gives.
        opset: version of the ONNX operators; None for torch.export.
        nodes: operators in the graph.
    """

    format: Format
    bytes: int
    shape: tuple[int | str, ...]
    outputs: tuple[str, ...]
    dtype: str
    opset: int | None
    nodes: int
    checks: list[Check]

    @property
    def error(self) -> float:
        """The largest relative error."""
        return max(c.error for c in self.checks)


def export_model(
    model: Backbone,
    file: Path,
    format: Format = "onnx",
    dynamic: Collection[Axis] = BATCH,
    say: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write `model` (on the CPU, as in evaluation mode) for another runtime. The file appears whole and
    compared with the model, or not at all. It takes images in the type of the model's parameters.

    Args:
        model: a classifier, or one with `features_only`, whose maps are outputs by name.
        dynamic: what may vary from call to call.
        say: is told what happens next, as some steps take a while.

    Raises: ExportError if the architecture does not allow it, or the result does not compute the same;
        MissingExtraError; OutputError if the file cannot be written.
    """
    exported: list[Exported] = []
    write_atomically(file, lambda path: exported.append(write_export(model, path, format, dynamic, say)))
    return exported[0]


def write_export(
    model: Backbone, path: Path, format: Format, dynamic: Collection[Axis], say: Callable[[str], None]
) -> Exported:
    """`export_model` without its care for what stands at `path`."""
    if format == "onnx":
        need("export", "onnx", "onnxruntime", "onnxscript")
    dtype = value_type(model)
    if format == "onnx" and dtype == torch.bfloat16:
        hint = "--format export takes bfloat16; for ONNX model.float(), or model.half()"
        raise ExportError(f"onnxruntime runs no bfloat16 on a CPU, so the file could not be compared\n  hint: {hint}")
    say("capturing the graph")
    program = capture(model, dynamic)
    number, opset = sum(n.op == "call_function" for n in program.graph.nodes), None
    if format == "onnx":
        say(f"converting {number} operators to ONNX")
        converted = onnx.convert(program, output_names(model))
        number, opset = onnx.nodes(converted), onnx.opset(converted)
        converted.save(path, external_data=False)
        run = onnx.load(path)
    else:
        with PatientFile(path) as out:
            torch.export.save(program, out)  # type: ignore[arg-type]
        run = _load_program(path)
    checks = compare(model, run, dynamic, say)
    names, typed = tuple(output_names(model)), str(dtype).removeprefix("torch.")
    return Exported(format, path.stat().st_size, _shape(program), names, typed, opset, number, checks)


def compare(
    model: Backbone, run: Callable[[Tensor], Any], dynamic: Collection[Axis], say: Callable[[str], None]
) -> list[Check]:
    """Run what was written beside the model, also at other sizes where these may vary.

    Raises: ExportError if an output differs by more than its type's tolerance.
    """
    sizes = [model.arch.plan.input.size, *(other_sizes(model) if "hw" in dynamic else ())]
    batches = (1, 3) if "batch" in dynamic else (1,)
    checks = []
    for size in sizes:
        x = images(model, max(batches), size)
        with evaluating(model):
            wanted = as_list(model(x))
        for batch in batches:
            say(f"comparing at {batch}x{'x'.join(map(str, x.shape[1:]))}")
            error = max(map(_difference, as_list(run(x[:batch])), (y[:batch] for y in wanted)))
            if not error <= TOLERANCES[x.dtype]:
                where = f"images of {'x'.join(map(str, x[:batch].shape))}"
                raise ExportError(
                    f"the exported graph differs from the model by {error:.1e} at {where}: nothing written"
                )
            checks.append(Check(tuple(x[:batch].shape), error))
    return checks


def _difference(got: Tensor, wanted: Tensor) -> float:
    """Relative to the largest magnitude; of other shapes, or NaN on one side alone, infinite."""
    if got.shape != wanted.shape:
        return float("inf")
    error = (got.double() - wanted.double()).abs().max() / wanted.double().abs().max()
    return error.item() if error.isfinite() else float("inf")


def _load_program(file: Path) -> Callable[[Tensor], Any]:
    with file.open("rb") as data:
        program: Any = torch.export.load(data).module()  # type: ignore[arg-type]

    def run(x: Tensor) -> Any:
        try:
            return program(x)
        except AssertionError as e:  # what was taken for fixed at capture; with one image, that windows are several
            text = f"the captured program does not take images of {'x'.join(map(str, x.shape))}: {e}"
            raise ExportError(
                f"{text}\n  hint: where height and width vary, let the batch too: --dynamic batch,hw"
            ) from None

    return run


def _shape(program: ExportedProgram) -> tuple[int | str, ...]:
    """What the program takes, in words: a number, `batch`, or `32*rows`."""
    names = onnx.axes(program)
    return tuple(s if isinstance(s, int) else onnx.renamed(str(s), names) for s in input_shape(program))
