"""This process among those that a launcher started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def join() -> Accelerator:
    """The process's accelerator. Without `cpu`, several on a machine without a GPU would not join."""
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.accelerator.is_available())


def leave() -> bool:
    """Part from the other processes at the end. Gives whether this is the one that speaks."""
    from accelerate import PartialState

    state = PartialState()
    main = state.is_main_process
    state.wait_for_everyone()
    if state.num_processes > 1:
        state.destroy_process_group()
    return main
