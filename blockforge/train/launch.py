"""This process among those that a launcher started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from blockforge.errors import BlockforgeError, RunError

if TYPE_CHECKING:
    from accelerate import Accelerator


def join() -> Accelerator:
    """The process's accelerator. Without `cpu`, several on a machine without a GPU would not join."""
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.accelerator.is_available())


@contextlib.contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Something that one process may refuse: then all do, and none waits for it.

    Raises: what the block raises; RunError where another process refused.
    """
    error: BlockforgeError | None = None
    try:
        yield
    except BlockforgeError as e:
        error = e
    if accelerator.num_processes > 1:
        mine = torch.tensor([int(error is not None)], device=accelerator.device)
        if int(accelerator.gather(mine).sum()) and error is None:  # type: ignore[union-attr]
            error = RunError("another process of this run refused to start; its message says why")
    if error is not None:
        raise error


def leave() -> bool:
    """Part from the other processes at the end. Gives whether this is the one that speaks."""
    from accelerate import PartialState

    state = PartialState()
    main = state.is_main_process
    state.wait_for_everyone()
    if state.num_processes > 1:
        state.destroy_process_group()
    return main
