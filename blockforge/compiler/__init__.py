"""Spec -> Plan -> graph -> Architecture -> module, one pass a file; only `lower` makes tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.assemble import assemble
from blockforge.compiler.cost import add_costs
from blockforge.compiler.finish import finish
from blockforge.compiler.infer import infer
from blockforge.errors import Report
from blockforge.spec import Spec, SpecLike, load, resolve
from blockforge.spec.resolve import Ask

__all__ = ["Architecture", "compile_spec"]


def compile_spec(
    source: SpecLike, overrides: Mapping[str, Any] | list[str] | None = None, *, ask: Ask | None = None
) -> Architecture:
    """Compile a spec to a graph with exact shapes and costs. Makes no tensor.

    Args:
        source: whatever `load` takes.
        overrides: values to replace by path.
        ask: gives values for holes; without it holes are an error.
    Raises: SpecError with every error of the pass that found one.
    """
    spec: Spec = load(source, overrides)
    report = Report(spec.locs)
    plan = resolve(spec, ask, report)
    graph = assemble(plan, report)
    infer(graph, plan, report)
    add_costs(graph)
    finish(graph, plan)
    return Architecture(graph, spec, plan, tuple(report.warnings))
