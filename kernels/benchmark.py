"""What `blockforge bench kernels` times: a `bench.py` in an operator's folder defines `cases()`.

    def cases() -> list[Case]:
        return [Case("L 3136, N 1", make, run, loop, "loop over L")]

`make(device)` gives the inputs as float tensors, `run(*inputs)` calls the public function, `baseline(*inputs)` what
others do. The bench calls `run` once for each backend inside `with backend(name):`; with `--backward` the inputs
require gradients and it also runs `.backward()` from the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One size at which an operator is timed.

    Attributes:
        name: what it is like and where it occurs.
        make: the inputs on a device, all of them floating point.
        run: the public function on the inputs, whichever backend is in force; gives one tensor.
        baseline: what is usually done instead, on the same inputs.
        baseline_name: of that, in a few words.
        tolerance: largest relative difference of the two outputs.
    """

    name: str
    make: Callable[[torch.device], tuple[Tensor, ...]]
    run: Callable[..., Tensor]
    baseline: Callable[..., Tensor]
    baseline_name: str
    tolerance: float = 1e-4
