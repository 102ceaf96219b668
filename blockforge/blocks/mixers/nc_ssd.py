"""State space duality without causality: VSSD's mixer."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.mixers.duality import Duality, DualityModule
from blockforge.blocks.registry import mixer
from blockforge.kernels.nc_ssd import nc_ssd


@mixer("nc_ssd")
class NCSSD(Duality):
    """Non-causal state space duality: as `ssd`, but tokens do not decay. All of them add to one state matrix
    a head, each with its weight m = -dt A, and every token reads the whole of it: `C sum(m B x) + D x`.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: 2 L D N multiply-adds for the states (L = H * W, D the inner width, N = d_state) beside the linear
    layers; no scan.
    Raises: OpError if the heads do not divide the inner width, or the groups the heads.
    Reference: VSSD, https://arxiv.org/abs/2407.18559, section 3.2. With several groups head h reads group
    h mod num_groups, as in the released code.
    """

    weighted: bool = True
    """The weight m of each token; false: all weigh 1, and step sizes fall away (the paper's table 6)."""

    def has_steps(self) -> bool:
        return self.weighted

    def scan_cost(self, shape: Shape) -> Cost:
        inner, positions = self.inner(shape.dim), shape.positions
        gathered = primitives.matmul(self.d_state, positions, inner)
        return gathered + primitives.matmul(positions, self.d_state, inner)

    def scan_workspace(self, shape: Shape) -> int:
        inner, positions = self.inner(shape.dim), shape.positions
        alive = self.d_state * inner + positions * self.heads(shape.dim) * self.has_steps()
        if self.num_groups > 1:
            alive += positions * (inner + self.states())  # values and states' weights, regrouped
        return alive

    def build(self, shape: Shape) -> nn.Module:
        return NCSSDModule(*self.sizes(shape.dim), has_steps=self.weighted)


class NCSSDModule(DualityModule):
    """See `NCSSD`."""

    def scan(self, values_BLHP: Tensor, steps_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
        weights_BLH = None if steps_BLH is None else steps_BLH * self.A_log.exp()
        return nc_ssd(values_BLHP, weights_BLH, B_BLGN, C_BLGN, self.D)

    @property
    def token_weights(self) -> Callable[[Tensor], Tensor] | None:
        """x_BHWC -> m of each token, (B, H, W, heads); None where all tokens weigh the same."""
        return None if self.fc_dt is None else self._token_weights

    def _token_weights(self, x: Tensor) -> Tensor:
        assert self.fc_dt is not None
        return F.softplus(self.fc_dt(x) + self.dt_bias) * self.A_log.exp()
