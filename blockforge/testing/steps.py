"""What one block keeps for its backward pass, on the CPU and on the meta device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Op, Place
from blockforge.blocks.live_storages import LiveStorages
from blockforge.kernels import backend
from blockforge.kernels.costs import rehearsal
from blockforge.measure.memory import held
from blockforge.testing.examples import build_on_maps, example_inputs
from blockforge.torch_private import tree_map_only


def saved_on_meta(op: Op[*Place], place: tuple[*Place], batch: int, name: str) -> int:
    """Bytes that live when the forward pass has ended, found on the meta device for a backend."""
    with rehearsal(name), torch.device("meta"):
        module = build_on_maps(op, *place).train()
        with LiveStorages() as live:
            result = _forward(module, op, place, batch, "meta")
            saved = live.now
    del result
    return saved


def saved_on_cpu(op: Op[*Place], place: tuple[*Place], batch: int, name: str) -> int:
    """The same on the CPU, run by a backend."""
    with backend(name), torch.random.fork_rng(devices=[]):
        module = build_on_maps(op, *place).train()
        _forward(module, op, place, batch, "cpu")  # what is made once is there
        return held(lambda: _forward(module, op, place, batch, "cpu"))


def _forward(module: nn.Module, op: Op[*Place], place: tuple[*Place], batch: int, device: str) -> Tensor:
    """The result on inputs that need gradients, as inside a network."""
    inputs = example_inputs(op.kind, *place, batch=batch)
    y: Tensor = module(*tree_map_only(Tensor, lambda t: t.to(device).requires_grad_() * 1, inputs))
    return y
