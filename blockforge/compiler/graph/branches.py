"""Branches whose way around the op is more than the sum: written as the composite that says so.

What a branch has always been (`lowering.modules.Branch`) stays that, with its names in `state_dict`.
"""

from __future__ import annotations

from dataclasses import replace

from blockforge.blocks.compose.frame import Bound, Definitions, Frame
from blockforge.blocks.compose.written import Map, Seq, freeze
from blockforge.blocks.compose.written_op import Written
from blockforge.blocks.composites.residual import Residual
from blockforge.blocks.parts.scale import Scale
from blockforge.spec.model import BranchKeys
from blockforge.spec.plan import Branch


def is_residual(branch: Branch) -> bool:
    """Whether its identity path holds ops, or it depends on the map whether there is one."""
    return not isinstance(branch.keys.skip, bool)


def as_residual(branch: Branch, definitions: Definitions) -> Written:
    """The branch as one op: what reads its input and gives its result."""
    path, keys, act = branch.op.path, branch.keys, branch.post_act
    skip, scale = freeze(keys.skip, (*path, "skip")), keys.scale
    if scale is not None and scale.skip is not None:
        affine = freeze({"op": Scale.op, "init": scale.skip, "bias": True}, (*path, "scale"))
        skip = Seq((skip, affine), (*path, "skip"))
    op = freeze(branch.op.spec.written(), path)
    items = {
        "op": Residual.op,
        "of": op,
        "norm": freeze(branch.norm.spec.written(), branch.norm.path) if branch.norm is not None else "none",
        "skip": skip,
        "post_act": freeze(act.spec.written(), act.path) if act is not None else "none",
        "scale": scale.branch if scale is not None and scale.branch is not None else "none",
    }
    more = {name: value for name, value in keys if name not in items}
    items |= {name: value for name, value in more.items() if value != BranchKeys.model_fields[name].default}
    called = Written(of=Bound(op)).title
    return Written(of=Bound(Map(tuple(items.items()), path), Frame((), definitions), path), called=called)


def alone(branch: Branch) -> Branch:
    """What is left of a branch around the op that it has become: nothing."""
    return replace(branch, norm=None, post_act=None, keys=BranchKeys(skip=False))
