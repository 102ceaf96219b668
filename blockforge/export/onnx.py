"""ONNX: the captured graph in standard operators, weights inside the file, run by onnxruntime."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from blockforge.export.capture import input_shape
from blockforge.export.kinds import ExportError

MAX_BYTES = 2**31 - 1
"""The most that one file of this format may hold."""
INPUT = "image"
CONTIGUOUS = torch.contiguous_format
AXES = ("batch", "channels", "rows", "columns")


def convert(program: ExportedProgram, outputs: list[str]) -> Any:
    """The program as torch's ONNXProgram.

    Args:
        outputs: names of what it gives.
    Raises: ExportError if an operator has no standard form, or the file would be too large.
    """
    held = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if held > MAX_BYTES:
        text = f"the weights take {held / 2**30:.1f} GiB, and an ONNX file holds less than 2 GiB"
        raise ExportError(f"{text}\n  hint: --format export has no such limit")
    _loosen_views(program)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter about itself
        program_onnx = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False, **names)
    assert program_onnx is not None
    _simplify(program_onnx.model)
    foreign = sorted({f"{n.domain}::{n.op_type}" for n in program_onnx.model.graph.all_nodes() if n.domain})
    if foreign:
        raise ExportError(f"no standard ONNX operator for {', '.join(foreign)}")
    _name_axes(program_onnx.model.graph, axes(program))
    return program_onnx


def _loosen_views(program: ExportedProgram) -> None:
    """Let views of attention's results copy: the converter writes attention in other operators, whose results lie
    otherwise in memory than those that the graph was captured with."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        elif node.target is torch.ops.aten.scaled_dot_product_attention.default:
            with graph.inserting_after(node):
                copy = graph.call_function(torch.ops.aten.clone.default, (node,), {"memory_format": CONTIGUOUS})
            copy.meta = {**node.meta, "val": node.meta["val"].contiguous()}
            node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    program.graph_module.recompile()


def _simplify(model: Any) -> None:
    """What does not depend on the image is computed now, and equal nodes are one. (The converter's own optimiser
    takes time with the square of the number of nodes: minutes for the scans of a whole network.)"""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    for simplify in (
        common.RemoveUnusedNodesPass(),
        common.CommonSubexpressionEliminationPass(),
        common.LiftConstantsToInitializersPass(),
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(),
    ):
        simplify(model)


def nodes(converted: Any) -> int:
    """Operators in the graph."""
    return sum(1 for _ in converted.model.graph.all_nodes())


def opset(converted: Any) -> int:
    """Version of the standard operators."""
    return converted.model.opset_imports[""]


def load(file: Path) -> Any:
    """What runs the file: x_BCHW -> its outputs, in their order."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {INPUT: x.numpy()})]


def axes(program: ExportedProgram) -> dict[str, str]:
    """Names for torch's symbols in the shapes of a program: `batch`, `rows`, `columns`."""
    shape = zip(input_shape(program), AXES, strict=True)
    return {str(s): name for size, name in shape if not isinstance(size, int) for s in size.free_symbols}


def renamed(size: str, names: dict[str, str]) -> str:
    """A size in torch's symbols with these names."""
    return re.sub(r"\bs\d+\b", lambda m: names.get(m[0], m[0]), size)


def _name_axes(graph: Any, names: dict[str, str]) -> None:
    """Say these names in every shape of the graph."""
    values = [*graph.inputs, *(v for node in graph.all_nodes() for v in node.outputs)]
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = renamed(size.value, names)
