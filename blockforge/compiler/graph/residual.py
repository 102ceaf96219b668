"""What a branch does with what its op gives: `post_act(x + drop_path(scale * op(norm(x))))` but for op and norm, and
without `x +` and `drop_path` where `skip` is false.

Whatever a spec says of a branch beside those two comes here as it is written, in `keys`: a new key is a field of
`BranchKeys`, its meaning here, and its module in `lowering.modules.Branch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blockforge.blocks.base import Cost
from blockforge.spec.model import BranchKeys


@dataclass(frozen=True, slots=True)
class Residual:
    """The way from a branch's op to the sum, in one layer. `rate`: of drop path, there."""

    keys: BranchKeys
    rate: float

    @classmethod
    def of(cls, keys: BranchKeys, rate: float) -> Residual:
        """In a layer of this rate of drop path."""
        return cls(keys, rate if keys.drop_path and keys.skip else 0.0)

    def form(self) -> list[Any]:
        """What sets it apart from others, the rate aside; what is at its default and came later leaves no trace."""
        scale, post_act, skip = self.keys.scale, self.keys.post_act, self.keys.skip
        scales = [scale.branch, scale.skip] if scale is not None else None
        return [scales, *([post_act] if post_act is not None else []), *([] if skip else [skip])]

    def canonical(self) -> list[Any]:
        """Its part of a node's row in the canonical form."""
        scales, *rest = self.form()
        return [scales, round(self.rate, 12), *rest]

    def options(self) -> dict[str, Any]:
        """What `lowering.modules.Branch` is told of it: the keys by name, but for defaults."""
        return {
            name: getattr(self.keys, name)
            for name, field in BranchKeys.model_fields.items()
            if name != "drop_path" and getattr(self.keys, name) != field.default
        }

    def cost(self, dim: int, elements: int) -> Cost:
        """Of the scales, on a map of so many channels and elements."""
        cost = Cost()
        if (scale := self.keys.scale) is not None:
            cost += Cost(dim) if scale.branch is not None else Cost()
            cost += Cost(2 * dim, elements) if scale.skip is not None else Cost()
        return cost

    def elements(self, out: int, *, normed: bool, fed: bool, in_one_pass: bool, gives_input_back: bool) -> int:
        """What lives at once while the branch is scaled and added: it, its scaled form or the sum, the scaled input.

        Args:
            out: elements of the op's result.
            normed, fed: whether the op reads what a norm gives, or an aggregator.
            in_one_pass: the op's module can add its input by itself (`blocks.base.MapOp.residual`).
            gives_input_back: the op's result is its input.
        """
        scale, acts = self.keys.scale, self.keys.post_act is not None
        if not self.keys.skip:
            scaled = scale is not None and scale.branch is not None
            return out * (1 + max(scaled, acts))
        if in_one_pass and scale is None and self.rate == 0 and not (normed or fed):
            return out * (1 + acts)
        own = gives_input_back and not normed and (scale is None or scale.branch is None)
        maps = 2 - own + (scale is not None and scale.skip is not None)
        return out * max(maps, 1 + acts)
