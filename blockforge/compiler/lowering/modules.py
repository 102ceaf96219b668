"""The modules that hold blocks together: residual branches, layers, windows. Maps are x_BHWC throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.blocks.joins.meeting import added
from blockforge.blocks.layers import DropPath, channel_affine
from blockforge.blocks.leaves import layout_of, on_map
from blockforge.blocks.recompute import checkpoint
from blockforge.blocks.windows import cut_windows, join_windows
from blockforge.errors import InputError, OpError
from blockforge.kernels.cpu import untouched
from blockforge.spec.model import ScaleSpec


class Branch(nn.Module):
    """`post_act(x + drop_path(scale * op(norm(x))))`.

    Args:
        op: the block.
        norm: before the block; None: none, or an aggregator has applied it.
        dim: channels.
        drop_path: probability to drop the branch of an image in training.
        scale: a learnt scale on the branch (LayerScale), or scale and bias on the identity path.
        post_act: activation of the sum, or none.
        skip: whether x is added.
    """

    def __init__(
        self,
        op: nn.Module,
        norm: nn.Module | None,
        dim: int,
        drop_path: float,
        scale: ScaleSpec | None = None,
        post_act: nn.Module | None = None,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.norm = norm if norm is not None else nn.Identity()
        self.op, self.made = op, type(op)
        self.norm_layout, self.layout = layout_of(self.norm), layout_of(op)
        on_branch, on_skip = (scale.branch, scale.skip) if scale is not None else (None, None)
        self.scale = nn.Parameter(torch.empty(dim)) if on_branch is not None else None
        self.skip_scale = nn.Parameter(torch.empty(dim)) if on_skip is not None else None
        self.skip_bias = nn.Parameter(torch.empty(dim)) if on_skip is not None else None
        self.starts = (on_branch or 0.0, on_skip or 0.0)
        self.reset_parameters()
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.post_act = post_act
        self.skip = skip
        adds_input = hasattr(type(op), "residual")  # a method: a composed op may have a part of this name
        self.at_once = skip and norm is None and scale is None and drop_path == 0 and adds_input

    def reset_parameters(self) -> None:
        for parameter, start in zip((self.scale, self.skip_scale, self.skip_bias), (*self.starts, 0.0), strict=True):
            if parameter is not None:
                nn.init.constant_(parameter, start)

    def forward(self, x: Tensor, fed: Tensor | None = None) -> Tensor:
        """`fed`: what an aggregator gives in place of the branch's own input."""
        if self.at_once and fed is None and self._is_as_made():
            op: Any = self.op
            y = on_map(op.residual, x, self.layout)
            return self.post_act(y) if self.post_act is not None else y
        y = on_map(self.op, on_map(self.norm, x if fed is None else fed, self.norm_layout), self.layout)
        if self.scale is not None:
            y = y * self.scale
        if self.skip_scale is not None and self.skip_bias is not None:
            x = channel_affine(x, self.skip_scale, self.skip_bias)
        if self.skip:
            y = added(x, self.drop_path(y))
        return self.post_act(y) if self.post_act is not None else y

    def _is_as_made(self) -> bool:
        """Whether nobody would miss a call of what stands around the block."""
        around = (self.norm, self.drop_path)
        return untouched(self.op, self.made) and all(untouched(leaf, nn.Identity) for leaf in around)

    def no_weight_decay(self) -> set[str]:
        return {n for n in ("scale", "skip_scale", "skip_bias") if getattr(self, n) is not None}


class Fuse(nn.Module):
    """An aggregator behind the norm of the branch that it feeds."""

    def __init__(self, op: nn.Module, norm: nn.Module | None) -> None:
        super().__init__()
        self.norm = norm if norm is not None else nn.Identity()
        self.norm_layout = layout_of(self.norm)
        self.op = op

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        return self.op(on_map(self.norm, x, self.norm_layout), sources)


class Layer(nn.Module):
    """The branches of a layer in a row; `fed` names the one that the aggregator feeds, if there is one."""

    def __init__(self, branches: Mapping[str, nn.Module], fuse: Fuse | None = None, fed: str | None = None) -> None:
        super().__init__()
        if fuse is not None:
            self.aggregate = fuse
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.names, self.fed = tuple(branches), fed
        self.grad_checkpointing = False

    def forward(self, x: Tensor, *sources: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled() and not torch.jit.is_tracing():
            y: Tensor = checkpoint(self, self._run, x, *sources)
            return y
        return self._run(x, *sources)

    def _run(self, x: Tensor, *sources: Tensor) -> Tensor:
        for name in self.names:
            branch = self._modules[name]
            assert branch is not None
            x = branch(x, self.aggregate(x, list(sources))) if name == self.fed else branch(x)
        return x


class WindowIn(nn.Module):
    """Cut maps into window x window tiles, zero-padded right and below: (B, H, W, C) -> (B * tiles, w, w, C)."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return cut_windows(x, self.window)

    def extra_repr(self) -> str:
        return f"window={self.window}"


class WindowOut(nn.Module):
    """Put the tiles of `WindowIn` back and crop: (B * tiles, w, w, C), H, W -> (B, H, W, C), see `join_windows`."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return join_windows(x, self.window, height, width)

    def extra_repr(self) -> str:
        return f"window={self.window}"


def image_map(image_BCHW: Tensor, channels: int, least: tuple[int, int] = (1, 1)) -> Tensor:
    """The image as a map, x_BHWC. Raises: OpError if a side is less than that of the `least` one.

    In inference it is laid out so, which the first convolution is faster on. Where gradients are kept it stays as
    it lies: the copy would be kept with them.
    """
    if isinstance(image_BCHW, Tensor) and not torch.jit.is_tracing():  # tracers pass what has no shape yet
        _check_images(image_BCHW, channels)
        (height, width), (rows, columns) = image_BCHW.shape[-2:], least
        if height < rows or width < columns:
            text = f"the network leaves nothing of images of {height}x{width}"
            raise OpError(text, hint=f"{rows}x{columns} or larger")
    if channels == 1:  # permuted, it would keep strides that a convolution takes for NCHW
        return image_BCHW.squeeze(1).unsqueeze(-1).contiguous()
    x = image_BCHW.permute(0, 2, 3, 1)
    return x if torch.is_grad_enabled() else x.contiguous()


def _check_images(x: Tensor, channels: int) -> None:
    """Refuse what is no batch of images of the network's channels. Raises: InputError."""
    wants = f"the network wants images (B, {channels}, H, W)"
    if x.ndim != 4 or x.shape[1] != channels:
        last = x.ndim == 4 and x.shape[3] == channels
        hint = "x.permute(0, 3, 1, 2) puts channels before rows" if last else None
        hint = "x[None] makes a batch of one image" if x.ndim == 3 and x.shape[0] == channels else hint
        hint = hint or "in_chans=N, or input.channels in the spec, builds it for other images"
        raise InputError(f"{wants}, got {tuple(x.shape)}\n  hint: {hint}")
    if not x.is_floating_point():
        raise InputError(f"{wants} of floats, got {x.dtype}\n  hint: x.float() / 255, then normalise")
