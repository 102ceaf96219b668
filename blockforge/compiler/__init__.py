"""Spec -> Plan -> graph -> Architecture -> module, one pass a file; only `lower` makes tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.costs.cost import add_costs
from blockforge.compiler.finish import finish
from blockforge.compiler.graph.assemble import assemble
from blockforge.compiler.graph.infer import infer
from blockforge.errors import Report
from blockforge.kernels.costs import DEFAULT, check_backend
from blockforge.spec import Spec, SpecLike, load, resolve
from blockforge.spec.resolve import Ask

__all__ = ["Architecture", "compile_spec"]


def compile_spec(
    source: SpecLike,
    overrides: Mapping[str, Any] | list[str] | None = None,
    *,
    ask: Ask | None = None,
    backend: str = DEFAULT,
) -> Architecture:
    """Compile a spec to a graph with exact shapes and costs. Makes no tensor.

    Args:
        source: whatever `load` takes.
        overrides: values to replace by path.
        ask: gives values for holes; without it holes are an error.
        backend: whose memory the figures are of, `numba` or `torch`; they are the same on every machine, whatever is
            installed there.
    Raises: SpecError with every error of the pass that found one; CostError if no costs of the backend are known.
    """
    check_backend(backend)
    spec: Spec = load(source, overrides)
    report = Report(spec.locs)
    plan = resolve(spec, ask, report)
    graph = assemble(plan, report)
    infer(graph, plan, report)
    add_costs(graph, backend)
    finish(graph, plan)
    return Architecture(graph, spec, plan, tuple(report.warnings), backend)
