"""Branches whose way around the op is more than the sum: written as the composite that says so.

What a branch has always been (`lowering.modules.Branch`) stays that, with its names in `state_dict`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from blockforge.blocks.compose.frame import Bound, Definitions, Frame
from blockforge.blocks.compose.written import Map, Seq, freeze
from blockforge.blocks.compose.written_op import Written
from blockforge.spec.model import BranchKeys
from blockforge.spec.plan import Branch


def is_residual(branch: Branch) -> bool:
    """Whether its identity path holds ops, or it depends on the map whether there is one."""
    return not isinstance(branch.keys.skip, bool)


def as_residual(branch: Branch, definitions: Definitions) -> Written:
    """The branch as one op: what reads its input and gives its result."""
    path, keys = branch.op.path, branch.keys
    around: dict[str, Any] = {"skip": keys.skip, "drop_path": keys.drop_path}
    skip = freeze(keys.skip, (*path, "skip"))
    if keys.scale is not None:
        around["scale"] = keys.scale.branch if keys.scale.branch is not None else "none"
        if keys.scale.skip is not None:
            affine = freeze({"op": "scale", "init": keys.scale.skip, "bias": True}, (*path, "scale"))
            skip = Seq((skip, affine), (*path, "skip"))
    norm = freeze(branch.norm.spec.written(), branch.norm.path) if branch.norm is not None else "none"
    act = branch.post_act
    post_act = freeze(act.spec.written(), act.path) if act is not None else "none"
    op = freeze(branch.op.spec.written(), path)
    items = (
        ("op", "residual"), ("of", op), ("norm", norm), ("skip", skip), ("post_act", post_act),
        *((k, v) for k, v in around.items() if k != "skip"),
    )  # fmt: skip
    return Written(of=Bound(Map(items, path), Frame((), definitions), path), called=str(Written(of=Bound(op)).title))


def alone(branch: Branch) -> Branch:
    """What is left of a branch around the op that it has become: nothing."""
    return replace(branch, norm=None, post_act=None, keys=BranchKeys(skip=False))
