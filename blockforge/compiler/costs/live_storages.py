"""The memory of tensors while they live, on any device, the meta device included: what operators make, until it is
freed."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from blockforge.torch_private import TorchDispatchMode, storage_key, tree_iter


class LiveStorages(TorchDispatchMode):
    """Adds up the storages that operators return, until each is freed. What existed before is not counted, nor what an
    operator allocates inside itself.

    Attributes:
        now, peak: bytes alive, and the most that were alive at once.
        course: bytes alive after each operator, in the order in which they ran.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, int] = {}  # a storage's address -> its bytes
        self.now = self.peak = 0
        self.course: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage_key(_storage(t)) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._see(_storage(tensor), given)
        self.peak = max(self.peak, self.now)
        self.course.append(self.now)
        return result

    def _see(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        address, size = storage_key(storage), storage.nbytes()
        if address in self.alive:
            self.now += size - self.alive[address]  # an operator may resize what it is given
        elif address not in given:
            self.now += size
            weakref.finalize(storage, self._freed, address)
        else:
            return
        self.alive[address] = size

    def _freed(self, address: int) -> None:
        self.now -= self.alive.pop(address)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
