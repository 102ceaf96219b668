"""What the operators of state space duality ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from blockforge.kernels.gpu.tiles import needs_triton_in_float32, tile

_LARGEST_SIDE, _LARGEST_STATE = 128, 64 * 128


def fits_triton(x: Tensor, *, head_dim: int = 1, d_state: int = 1) -> str | None:
    """Refuses what `needs_triton_in_float32` refuses, and states too large for one multiprocessor."""
    if why := needs_triton_in_float32(x):
        return why
    wide, high = tile(head_dim), tile(d_state)
    if max(wide, high) > _LARGEST_SIDE or wide * high > _LARGEST_STATE:
        return f"a state of {d_state} x {head_dim} is too large for its kernels"
    return None


def check_shapes(
    x: Tensor, B: Tensor, C: Tensor, per_token: dict[str, Tensor | None], **per_head: Tensor | None
) -> None:
    """`per_token` are (B, L, H), `per_head` (H).

    Raises: ValueError if the shapes do not fit x, (B, L, H, P), and each other.
    """
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"x must be (batch, L, heads, width), L >= 1, not {tuple(x.shape)}")
    batch, length, heads, _ = x.shape
    if B.ndim != 4 or B.shape[:2] != x.shape[:2] or B.shape[2] < 1 or heads % B.shape[2]:
        text = f"(batch {batch}, L {length}, groups, N) with groups that divide {heads} heads"
        raise ValueError(f"B must be {text}, not {tuple(B.shape)}")
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {"C": (C, tuple(B.shape))}
    wanted |= {name: (t, (batch, length, heads)) for name, t in per_token.items()}
    wanted |= {name: (t, (heads,)) for name, t in per_head.items()}
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape}, not {tuple(tensor.shape)}")
