"""How long a worker that has nothing to do waits before it looks again."""

from __future__ import annotations

import time

LEAST, MOST = 0.05, 1.0
_GROWTH = 1.3


class Pause:
    """Waits that grow while nothing happens, so that many idle workers load a database no more than a few do."""

    def __init__(self, least: float = LEAST, most: float = MOST) -> None:
        self.least, self.most = least, most
        self.seconds = least

    def wait(self) -> None:
        """Wait, the next time longer."""
        time.sleep(self.seconds)
        self.seconds = min(self.most, _GROWTH * self.seconds)

    def over(self) -> None:
        """There was something to do: the next wait is short."""
        self.seconds = self.least
