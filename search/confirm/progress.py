"""What a person sees while networks are trained again."""

from __future__ import annotations

from blockforge.console.progress import Display, display


class ConfirmProgress:
    """Shows how many trainings have ended, from the first time it is told. Entered, it ends with its block."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.shown: Display | None = None
        self.done = self.most = 0

    def __enter__(self) -> ConfirmProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.shown is not None:
            self.shown.stop()

    def knows(self, done: int) -> bool:
        """Whether it has been told so many."""
        return self.shown is not None and done == self.done

    def __call__(self, done: int, most: int) -> bool:
        """Whether a training has ended since the last call."""
        ended, self.done, self.most = done > self.done, done, most
        if self.shown is None:
            self.shown = display("confirm", self.show, seconds=5.0, to_the_end=True)
            self.shown.start(most, done, self.line, resumed=done > 0)
        elif ended:
            self.shown.update(done, "trainings at most", self.line)
        return ended

    def line(self) -> str:
        return f"confirm: {self.done} of {self.most} trainings at most"
