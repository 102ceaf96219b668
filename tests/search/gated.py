"""An objective that waits for a file once it has been called a few times, so that something can happen meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

LONGEST = 120.0
"""Seconds that a call waits at most: a test that never opens the gate ends too."""


class Gated:
    """The depth of a network; from the call after `calls` on, only once `file` is there.

    While it waits, there is a file beside it that ends in `.waited`.
    """

    def __init__(self, file: str, calls: int = 4) -> None:
        self.file, self.left = Path(file), calls

    def __call__(self, arch: Any) -> float:
        self.left -= 1
        end = time.monotonic() + LONGEST
        while self.left < 0 and not self.file.exists() and time.monotonic() < end:
            self.file.with_suffix(".waited").touch()
            time.sleep(0.02)
        time.sleep(0.05)
        return float(arch.depth)
