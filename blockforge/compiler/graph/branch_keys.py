"""What a branch does with what its op gives: `post_act(x + drop_path(scale * op(norm(x))))` but for op and norm, and
without `x +` and `drop_path` where `skip` is false.

Whatever a spec says of a branch beside those two comes here as it is written, in `keys`: a new key is a field of
`BranchKeys`, its meaning here, and its module in `lowering.modules.Branch`. A key that names a block comes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blockforge.blocks.base import Act, Cost, Shape
from blockforge.spec.model import BranchKeys


@dataclass(frozen=True, slots=True)
class Residual:
    """The way from a branch's op to the sum, in one layer. `rate`: of drop path; `post_act`: what its key names."""

    keys: BranchKeys
    rate: float
    post_act: Act | None = None

    @classmethod
    def of(cls, keys: BranchKeys, rate: float, post_act: Act | None) -> Residual:
        """In a layer of this rate of drop path."""
        rate = rate if keys.drop_path and keys.skip else 0.0
        if keys.post_act is not None:
            keys = keys.model_copy(update={"post_act": None})  # what it names counts, however it is written
        return cls(keys, rate, post_act)

    def form(self) -> list[Any]:
        """What sets it apart from others, the rate aside; what is at its default and came later leaves no trace."""
        scale, post_act, skip = self.keys.scale, self.post_act, self.keys.skip
        scales = [scale.branch, scale.skip] if scale is not None else None
        return [scales, *([post_act.as_parameter()] if post_act is not None else []), *([] if skip else [skip])]

    def canonical(self) -> list[Any]:
        """Its part of a node's row in the canonical form."""
        scales, *rest = self.form()
        return [scales, round(self.rate, 12), *rest]

    def options(self) -> dict[str, Any]:
        """What `lowering.modules.Branch` is told of it: the keys by name, but for defaults; blocks for names."""
        said = {
            name: getattr(self.keys, name)
            for name, field in BranchKeys.model_fields.items()
            if name not in ("drop_path", "post_act") and getattr(self.keys, name) != field.default
        }
        return said if self.post_act is None else {**said, "post_act": self.post_act}

    def cost(self, out: Shape) -> Cost:
        """Of the scales and the activation, on the map that the branch gives."""
        cost = self.post_act.cost(out) if self.post_act is not None else Cost()
        if (scale := self.keys.scale) is not None:
            cost += Cost(out.dim) if scale.branch is not None else Cost()
            cost += Cost(2 * out.dim, out.elements) if scale.skip is not None else Cost()
        return cost

    def elements(self, out: Shape, *, normed: bool, fed: bool, in_one_pass: bool, gives_input_back: bool) -> int:
        """What lives at once while the branch is scaled and added: it, its scaled form or the sum, the scaled input.

        Args:
            out: what the op gives.
            normed, fed: whether the op reads what a norm gives, or an aggregator.
            in_one_pass: the op's module can add its input by itself (`blocks.base.MapOp.residual`).
            gives_input_back: the op's result is its input.
        """
        scale, activated = self.keys.scale, out.elements
        if self.post_act is not None:
            activated += self.post_act.workspace(out)
        if not self.keys.skip:
            scaled = scale is not None and scale.branch is not None
            return max(out.elements * (1 + scaled), activated)
        if in_one_pass and scale is None and self.rate == 0 and not (normed or fed):
            return activated
        own = gives_input_back and not normed and (scale is None or scale.branch is None)
        maps = 2 - own + (scale is not None and scale.skip is not None)
        return max(out.elements * maps, activated)
