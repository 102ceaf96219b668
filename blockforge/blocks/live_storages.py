"""The memory of tensors while they live, on any device, the meta device included: what operators make, until it is
freed."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blockforge.errors import BlockforgeError
from blockforge.torch_private import TorchDispatchMode, storage_key, tree_iter, tree_map_only


class OutOfTimeError(BlockforgeError):
    """A run that was to end by a certain time has not."""


class Made(NamedTuple):
    """A tensor, and what made it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    operator: str
    where: str

    def __str__(self) -> str:
        sides = "x".join(map(str, self.shape)) or "scalar"
        return (
            f"{self.nbytes:>12,} bytes  {sides} {str(self.dtype).removeprefix('torch.')}  {self.operator}, {self.where}"
        )


class LiveStorages(TorchDispatchMode):
    """Adds up the storages that operators return, until each is freed. What existed before is not counted, nor what an
    operator allocates inside itself.

    Args:
        list_after: the number of an operator, from 0, after which `listed` is made; None: of none.
        until: the `time.thread_time()` at which to stop with `OutOfTimeError`; None: never.

    Attributes:
        now, peak: bytes alive, and the most that were alive at once.
        course: bytes alive after each operator, in the order in which they ran.
        listed: what lived after the operator `list_after`, the largest first.
    """

    def __init__(self, list_after: int | None = None, until: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, int] = {}  # a storage's address -> its bytes
        self.made: dict[int, Made] = {}
        self.now = self.peak = 0
        self.course: list[int] = []
        self.listed: list[Made] = []
        self.list_after, self.until = list_after, until

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.until is not None and time.thread_time() > self.until:
            raise OutOfTimeError(f"it still runs after {len(self.course):,} operators")
        given = {storage_key(_storage(t)) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        result = _as_on_a_cpu(func, args, func(*args, **(kwargs or {})))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._see(tensor, given, func)
        self.peak = max(self.peak, self.now)
        if len(self.course) == self.list_after:
            self.listed = sorted((self.made[a] for a in self.alive), key=lambda made: -made.nbytes)
        self.course.append(self.now)
        return result

    def _see(self, tensor: Tensor, given: set[int], func: Any) -> None:
        storage = _storage(tensor)
        address, size = storage_key(storage), storage.nbytes()
        if address in self.alive:
            self.now += size - self.alive[address]  # an operator may resize what it is given
        elif address not in given:
            self.now += size
            weakref.finalize(storage, self._freed, address)
        else:
            return
        self.alive[address] = size
        if self.list_after is not None and address not in self.made:
            self.made[address] = Made(tuple(tensor.shape), tensor.dtype, size, str(func), _caller())

    def _freed(self, address: int) -> None:
        self.now -= self.alive.pop(address)
        self.made.pop(address, None)


def growth(course_of: Callable[[int], list[int]]) -> tuple[int, int | None]:
    """What each image adds to the most bytes that live at once in large batches, and the number of the operator after
    which that is.

    That is the most that any moment grows by. The peak of a few images may grow by less: it is where a table is made,
    once a call, and not where most is held for each image. Only where the operators depend on the batch is there no
    telling which moments are the same ones; there it is the peak that grows, and the moment is not known.

    Args:
        course_of: the `LiveStorages.course` of a batch.
    """
    course_of(1)  # the first call may look up what later ones know
    few, many = (course_of(batch) for batch in BATCHES)
    if len(few) != len(many):
        return per_image(max(many) - max(few)), None
    grown = [b - a for a, b in zip(few, many, strict=True)]
    most = max(range(len(grown)), key=lambda i: grown[i], default=None)
    return (per_image(grown[most]), most) if most is not None else (0, None)


BATCHES = (4, 8)
"""Two batches between which what a module holds grows by what an image adds."""


def per_image(more: int) -> int:
    """Bytes an image, of what the larger one of `BATCHES` holds more."""
    return more // (BATCHES[1] - BATCHES[0])


_ATEN = torch.ops.aten
_LAYOUT_OF_INPUT = (_ATEN.convolution, _ATEN.native_group_norm, _ATEN.channel_shuffle, _ATEN.native_channel_shuffle)
"""What on a CPU gives a channels-last map of a channels-last one. On the meta device it gives another layout, which the
next operator might copy."""


def _as_on_a_cpu(func: Any, args: tuple[Any, ...], result: Any) -> Any:
    """A result on the meta device in the layout that it has on a CPU."""
    if getattr(func, "overloadpacket", None) not in _LAYOUT_OF_INPUT or not args[0].is_meta:
        return result
    x: Tensor = args[0]
    if x.ndim != 4 or x.stride(1) != 1 or not x.shape[1] <= x.stride(3) <= x.stride(2) <= x.stride(0):
        return result  # a share of the channels counts as channels-last too
    return tree_map_only(
        Tensor, lambda t: torch.empty_like(t, memory_format=torch.channels_last) if t.ndim == 4 else t, result
    )


def _caller() -> str:
    """The line of code that called an operator: the innermost that is not torch's."""
    torch_itself = str(Path(torch.__file__).parent)
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(torch_itself):
            return f"{frame.f_code.co_qualname} ({Path(file).name}:{frame.f_lineno})"
        frame = frame.f_back
    return "torch"


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
