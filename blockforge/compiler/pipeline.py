"""The compiler on one page.

    YAML text --load--> Spec             blockforge.spec.load       read, checked against the schema, `extends` merged
     --resolve--> Plan                   blockforge.spec.resolve    names and holes replaced, every layer written out
     --assemble--> sites                 graph/assemble.py          blocks made; what stands where and reads what
     --infer--> shapes                   graph/infer.py             the maps between; whether each block can stand there
     --price--> nodes                    costs/cost.py              parameters, multiply-adds, memory
     = Architecture                      architecture.py            totals, units, stages, `graph`, hash
     --Backbone.from_architecture-->     lowering/                  the module: the only pass that makes tensors

Each pass makes the next thing and changes none that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.costs.cost import priced
from blockforge.compiler.graph.assemble import assemble
from blockforge.compiler.graph.infer import infer
from blockforge.errors import OpError, Report
from blockforge.kernels.costs import DEFAULT, check_backend
from blockforge.spec import Spec, SpecLike, load, resolve
from blockforge.spec.plan import Plan
from blockforge.spec.scope import Ask


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
    spec = load(source, overrides)
    report = Report(spec.locs)
    plan = resolve(spec, ask, report)
    return compile_plan(plan, spec, report, backend)


def compile_plan(plan: Plan, spec: Spec, report: Report, backend: str = DEFAULT) -> Architecture:
    """The same from a plan on. `spec`: what the plan was made of; `report`: takes warnings, errors are raised."""
    try:
        sites = assemble(plan, report)
        shapes = infer(sites, plan, report)
        nodes = priced(sites, shapes, backend)
    except OpError as e:  # of a block asked where no pass expects a mistake
        report.error(e.code, str(e), e.at or (), hint=e.hint)
        report.close()
        raise
    return Architecture(nodes, spec, plan, tuple(report.warnings), backend)
