"""State space duality: Mamba-2's scan over the positions in row-major order."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.mixers.duality import Duality, DualityModule
from blockforge.blocks.registry import mixer
from blockforge.kernels.ssd import ssd, ssd_macs


@mixer("ssd")
class SSD(Duality):
    """Causal state space duality: linear layers give the values, the states' weights, a step size a head and
    a gate; a depth-wise convolution and SiLU over the first two; then every head keeps one state matrix that
    decays from token to token in row-major order, `h = exp(dt A) h + dt B x`, and gives `C h + D x`; a
    LayerNorm, times the gate, and a linear layer.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: linear in the positions; the scan counts 9 L D N + L D multiply-adds by convention (L = H * W, D the
    inner width, N = d_state), whatever way computes it.
    Raises: OpError if the heads do not divide the inner width, or the groups the heads.
    Reference: Mamba-2, https://arxiv.org/abs/2405.21060; VSSD, https://arxiv.org/abs/2407.18559, table 5.
    """

    def scan_cost(self, shape: Shape) -> Cost:
        macs = ssd_macs(shape.positions, self.inner(shape.dim), self.d_state)
        return Cost(macs=macs, scan=macs)

    def scan_workspace(self, shape: Shape) -> int:
        return 0

    def build(self, shape: Shape) -> nn.Module:
        return SSDModule(*self.sizes(shape.dim))


class SSDModule(DualityModule):
    """See `SSD`."""

    def scan(self, values_BLHP: Tensor, steps_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
        assert steps_BLH is not None
        return ssd(values_BLHP, steps_BLH, -self.A_log.exp(), B_BLGN, C_BLGN, self.D)
