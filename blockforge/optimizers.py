"""What optimisers keep of each parameter: what a limit on training memory is stated with, known without torch."""

from __future__ import annotations

from typing import NamedTuple


class Kept(NamedTuple):
    """What an optimiser keeps: so many tensors of each parameter's size."""

    tensors: int
    title: str


OPTIMIZERS = {"adamw": Kept(2, "AdamW"), "sgd": Kept(1, "SGD with momentum"), "plain_sgd": Kept(0, "SGD")}
