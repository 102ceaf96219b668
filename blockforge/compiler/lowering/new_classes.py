"""A built head with another number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockforge.blocks.base import Head
from blockforge.blocks.compose.head import ComposedHead
from blockforge.blocks.compose.module import Composed
from blockforge.compiler.graph.units import Unit

if TYPE_CHECKING:
    from blockforge.compiler.lowering.backbone import Backbone


def reset(model: Backbone, unit: Unit, num_classes: int) -> bool:
    """Give what stands in a model's head other classes. Says whether anything in it is new.

    Args:
        unit: as it is with these classes; it may read another map, too.
    """
    placed, before = unit.last.shapes.placed, model.arch.nodes[unit.last.name].shapes.placed
    module: Any = model.get_submodule(unit.name)
    assert placed is not None
    if isinstance(module, ComposedHead):
        return module.refit(placed)
    if isinstance(module, Composed) and unit.last.program is not None:
        return module.become(unit.last.program)
    if isinstance(placed.op, Head) and placed.place[0] == before.place[0]:  # type: ignore[union-attr]
        module.reset(num_classes)
        return True
    if placed == before:
        return False
    like, made = next(module.parameters(), None), placed.build()
    parent, _, name = unit.name.rpartition(".")
    setattr(model.get_submodule(parent), name, made if like is None else made.to(like.device, like.dtype))
    return True
