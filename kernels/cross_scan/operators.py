"""The scan of a map over any kernel of the selective scan that takes positions in any order: each direction reads
the map where it lies and adds its result to the sum where that lies.

One direction's steps exist at a time; the backward pass makes them anew. For it the graph keeps the operands and
nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from blockforge.kernels.buffers import empty
from blockforge.kernels.cross_scan import captured
from blockforge.kernels.cross_scan.directions import DIRECTIONS, Order
from blockforge.kernels.observers import as_given, is_unseen
from blockforge.kernels.signature import Signature, dense

_ONE = "Tensor B, Tensor C, Tensor A, Tensor? D, Tensor? bias, int direction, int window, bool add"


class CrossScan:
    """The function `cross_scan` of a backend, and its operators.

    In a compiled graph stands one, `blockforge::cross_scan_<backend>`. Eager calls run operator by operator, so that
    counters of operations and of memory see all of them. Where nobody looks, a direction is a plain call: on a small
    map torch's dispatcher takes longer than the scan.

    Args:
        scan: a class like `selective_scan.numba_impl.Scan`.
    """

    def __init__(self, backend: str, scan: Any) -> None:
        name = f"blockforge::cross_scan_{backend}"
        self.scan = scan
        self.into = library.custom_op(
            f"{name}_into",
            self._into,
            mutates_args=("y",),
            schema=f"(Tensor(a!) y, Tensor x, Tensor steps, {_ONE}) -> ()",
        )
        self.back = library.custom_op(
            f"{name}_back",
            self._back,
            mutates_args=("dx", "steps"),
            schema=f"(Tensor(a!) dx, Tensor(b!) steps, Tensor dy, Tensor x, {_ONE}) -> (Tensor, Tensor, Tensor, Tensor,"
            " Tensor)",
        )
        self.back.register_fake(_fake_back)
        self.whole = SIGNATURE.bind(f"cross_scan_{backend}", self.forward, self.backward)

    def __call__(self, *operands: Any) -> Tensor:
        """See the package's `cross_scan`. In float32."""
        *tensors, directions, window = operands
        given = *tensors, [DIRECTIONS.index(d) for d in directions], window or 0
        if torch.compiler.is_compiling():
            return self.whole(*given)  # type: ignore[no-any-return]
        return _Eager.apply(self, *given)  # type: ignore[no-any-return, no-untyped-call]

    def forward(
        self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor | None,
        dt_bias: Tensor | None, directions: list[int], window: int,
    ) -> Tensor:  # fmt: skip
        """The sum of the scans, in x's type."""
        y = empty(x.shape, x)
        into: Any = self._into if is_unseen(x) else self.into
        with as_given(x):
            for k, direction in enumerate(directions):
                steps = dt[..., k, :].float() @ dt_weight[k].float().mT
                into(y, x, steps, *_direction(k, B, C, A, D, dt_bias), direction, window, k > 0)
                del steps  # before the next ones are made
        return y.to(x.dtype)

    def backward(
        self, dy: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor | None,
        dt_bias: Tensor | None, directions: list[int], window: int,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """The gradient of every tensor."""
        dx, of_directions = empty(x.shape, x), []
        back: Any = self._back if is_unseen(x) else self.back
        with as_given(x):
            for k, direction in enumerate(directions):
                dt_k, weight = dt[..., k, :].float(), dt_weight[k].float()
                steps = dt_k @ weight.mT
                given = _direction(k, B, C, A, D, dt_bias)
                of_parameters = back(dx, steps, dy, x, *given, direction, window, k > 0)
                of_weight = steps.flatten(0, 2).mT @ dt_k.flatten(0, 2)
                of_directions.append((steps @ weight, of_weight, *of_parameters))
                del steps
        ddt, dweight, dA, dB, dC, dD, dbias = zip(*of_directions, strict=True)
        at_positions = (torch.stack(of, 3).to(t.dtype) for of, t in ((ddt, dt), (dB, B), (dC, C)))
        of_each = ((dweight, dt_weight), (dA, A), (dD, D), (dbias, dt_bias))
        of_parameters = (None if t is None else torch.stack(of).to(t.dtype) for of, t in of_each)
        return (dx.to(x.dtype), *at_positions, *of_parameters)

    def _into(self, y: Tensor, x: Tensor, steps: Tensor, *others: Any) -> None:
        """y <- (with `add`: + ) one direction's scan."""
        *operands, add = others
        self._scan(x, steps, *operands).forward(y.view(_sequence(y)), add)

    def _back(self, dx: Tensor, steps: Tensor, dy: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
        """dx <- (with `add`: + ) one direction's gradient, steps <- their gradient; those of A, B, C, D and the
        bias."""
        *operands, add = others
        du, ddelta = dx.view(_sequence(x)), steps.view(_sequence(x))
        scan = self._scan(x, steps, *operands)
        dA, dB, dC, dD, dbias = scan.backward(dy.flatten(1, 2), du, ddelta, add)
        shape = (*x.shape[:3], dA.shape[0])
        return dA.mT.contiguous(), dB.reshape(shape), dC.reshape(shape), dD, dbias

    def _scan(
        self, x: Tensor, steps: Tensor, B: Tensor, C: Tensor, A: Tensor, D: Tensor | None, bias: Tensor | None,
        direction: int, window: int,
    ) -> Any:  # fmt: skip
        visited = Order(x.shape[1], x.shape[2], DIRECTIONS[direction], window)
        B, C = (t.flatten(1, 2).mT.unsqueeze(1) for t in (B, C))
        return self.scan.of(x.flatten(1, 2), steps.flatten(1, 2), A, B, C, D, bias, visited, softplus=True)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cross_scan: CrossScan, *inputs: Any) -> Tensor:
        ctx.cross_scan = cross_scan
        SIGNATURE.save(ctx, inputs, None)
        return cross_scan.forward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return None, *SIGNATURE.gradients(ctx, dy, ctx.cross_scan.backward)


def _direction(k: int, B: Tensor, C: Tensor, A: Tensor, D: Tensor | None, bias: Tensor | None) -> Any:
    """The operands of direction k."""
    return B[..., k, :], C[..., k, :], A[k], None if D is None else D[k], None if bias is None else bias[k]


def _sequence(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1] * x.shape[2], x.shape[3]


def _fake_back(
    dx: Tensor, steps: Tensor, dy: Tensor, x: Tensor, B: Tensor, C: Tensor, A: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    like = [dx.new_empty(t.shape) for t in (A, B, C)]
    return (*like, dx.new_empty(x.shape[3:]), dx.new_empty(x.shape[3:]))


def _plain(*operands: Any) -> Tensor:
    *tensors, directions, window = operands
    named: Any = (*tensors, tuple(DIRECTIONS[i] for i in directions), window)
    return captured.cross_scan(*named)


SIGNATURE = Signature(
    "Tensor x, Tensor dt, Tensor B, Tensor C, Tensor weight, Tensor A, Tensor? D, Tensor? bias, int[] directions,"
    " int window",
    plain=_plain,
    result=lambda x, *others: dense(x),
)
