"""Training memory: what a step holds, found by running it on the meta device, where tensors have shapes and no memory.

The step that is rehearsed is the real one: the built modules, autograd, checkpointing, cross-entropy. So nothing is
said twice, and a block of anybody is counted as it is. Only what a kernel allocates inside itself is not seen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from blockforge.blocks.live_storages import LiveStorages
from blockforge.compiler.lowering.outputs import loss_of
from blockforge.errors import did_you_mean
from blockforge.kernels.costs import CostError, rehearsal
from blockforge.optimizers import OPTIMIZERS
from blockforge.units import format_bytes

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture


@dataclass(frozen=True)
class TrainingMemory:
    """What one process holds while it trains in float32, in bytes. The images themselves are not counted.

    Attributes:
        weights: parameters and buffers.
        optimizer_state: what the optimiser keeps of each parameter, from the first step on.
        gradients: of the parameters, all of which live when the backward pass ends.
        saved: what the backward pass needs, alive when the forward pass ends.
        step: the most that forward and backward pass hold at once beside weights and optimiser: saved tensors, what
            is at work, and the gradients that there are already.
    """

    batch: int
    optimizer: str
    checkpointing: bool
    backend: str
    weights: int
    optimizer_state: int
    gradients: int
    saved: int
    step: int

    @property
    def total(self) -> int:
        """Weights, optimiser state and the peak of a step, from the second step on."""
        return self.weights + self.optimizer_state + self.step

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def training_memory(arch: Architecture, batch: int, optimizer: str, checkpointing: bool) -> TrainingMemory:
    """See `Architecture.training_memory`."""
    check_optimizer(optimizer)
    if batch < 1:
        raise CostError(f"a training step has one image at least, not {batch}")
    parameters, buffers, saved, step = _rehearsed(_Key(arch), batch, checkpointing)
    state = OPTIMIZERS[optimizer].tensors * parameters
    return TrainingMemory(
        batch, optimizer, checkpointing, arch.backend, parameters + buffers, state, parameters, saved, step
    )


def in_words(memory: Sequence[TrainingMemory]) -> str:
    """`training: 64 images, AdamW: 11.2 GB (5.1 GB with checkpointing)`."""
    plain, checkpointed = memory
    images = f"{plain.batch} image{'s' * (plain.batch > 1)}"
    less = f"{format_bytes(checkpointed.total)} with checkpointing"
    return f"training: {images}, {OPTIMIZERS[plain.optimizer].title}: {format_bytes(plain.total)} ({less})"


def check_optimizer(name: str) -> str:
    """The name itself. Raises: CostError if there is no such optimiser."""
    if name not in OPTIMIZERS:
        raise CostError(f"no optimizer named '{name}'\n  hint: {did_you_mean(name, OPTIMIZERS)}")
    return name


class _Key:
    """An architecture, equal to every other that is the same network with the costs of the same backend."""

    def __init__(self, arch: Architecture) -> None:
        self.arch, self.same = arch, (arch.hash, arch.backend)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.same == other.same

    def __hash__(self) -> int:
        return hash(self.same)


@functools.lru_cache(4096)
def _rehearsed(key: _Key, batch: int, checkpointing: bool) -> tuple[int, int, int, int]:
    """Bytes of the parameters and of the buffers, of what is saved, and of the peak of a step beside them."""
    from blockforge.compiler.lowering.backbone import Backbone

    arch, size = key.arch, key.arch.plan.input
    with rehearsal(arch.backend), torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            model = Backbone.from_architecture(arch).train()
            model.set_grad_checkpointing(checkpointing)
            image = torch.empty(batch, size.channels, *size.size)
            saved, step = rehearse(lambda: loss_of(model(image)))
        except (NotImplementedError, RuntimeError) as e:
            reason = str(e).strip().splitlines()[0][:200]
            text = f"the training memory of '{arch.name}' is not known: it does not run on the meta device: {reason}"
            raise CostError(f"{text}\n  hint: a block's forward pass may look at shapes, not at values") from e
    return _bytes(model.parameters()), _bytes(model.buffers()), saved, step


def rehearse(forward: Any) -> tuple[int, int]:
    """Bytes alive when the forward pass to a scalar has ended, and the most alive until the backward pass has."""
    with LiveStorages() as live:
        loss = forward()
        saved = live.now
        loss.backward()
    return saved, live.peak


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
