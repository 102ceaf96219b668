"""Kernels and their twins: every operator runs everywhere, and fast where a faster way is at hand."""

from __future__ import annotations

from blockforge.one_tree import at_home

if at_home(__name__, __file__):
    from blockforge.kernels.backends import Choice, KernelError, Operator, backend

__all__ = ["Choice", "KernelError", "Operator", "backend", "operators"]


def operators() -> dict[str, Operator]:
    """Every operator of this package by its name."""
    import importlib
    import pkgutil

    operators_by_name = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            operator = getattr(importlib.import_module(f"{__name__}.{module.name}"), "OPERATOR", None)
            if operator is not None:
                operators_by_name[module.name] = operator
    return operators_by_name
