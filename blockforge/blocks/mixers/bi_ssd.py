"""State space duality in two directions."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.mixers.duality import Duality, DualityModule
from blockforge.blocks.registry import mixer
from blockforge.kernels.ssd import bi_ssd, ssd_macs


@mixer("bi_ssd")
class BiSSD(Duality):
    """`ssd` in two directions: the second half of the heads, with input and output weights of its own, runs
    from the last position to the first.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: as `ssd`, and the projections of a second set of states' weights.
    Raises: OpError if the heads do not divide the inner width or are odd, or the groups do not divide their
        half.
    Reference: VSSD, https://arxiv.org/abs/2407.18559, table 5.
    """

    directions: ClassVar[int] = 2

    def scan_cost(self, shape: Shape) -> Cost:
        macs = ssd_macs(shape.positions, self.inner(shape.dim), self.d_state)
        return Cost(macs=macs, scan=macs)

    def scan_workspace(self, shape: Shape) -> int:
        return shape.positions * self.inner(shape.dim)  # both halves, before they are joined

    def build(self, shape: Shape) -> nn.Module:
        return BiSSDModule(*self.sizes(shape.dim))


class BiSSDModule(DualityModule):
    """See `BiSSD`."""

    def scan(self, values_BLHP: Tensor, steps_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
        assert steps_BLH is not None
        return bi_ssd(values_BLHP, steps_BLH, -self.A_log.exp(), B_BLGN, C_BLGN, self.D)
