"""What a report says of a screen: how many candidates it chose, and whether it knew what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockforge.search.objectives.ranking import Rankings

if TYPE_CHECKING:
    from blockforge.search.result import SearchResult

_FEWEST = 10


def screened(result: SearchResult) -> str | None:
    """A line; None where nothing was screened.

    The guess and the score are compared among the candidates that were let through: of those that were not, nobody
    knows the score. They are alike in what the predictor looks at, so that its tau is lower here than among any.
    """
    if (of := result.plan.screen) is None:
        return None
    chosen = [t for t in result.trials if t.guess and t.state == "scored" and t.rung == 0]
    said = f"Screened: {len(chosen)} candidates were each the likeliest of {of} proposals"
    if len(chosen) < _FEWEST:
        return f"{said}, too few to say how far the guesses held."
    scores = [result.plan.signs[0] * t.values[0] for t in chosen if t.values]
    tau = Rankings({"guess": [t.guess[0] for t in chosen if t.guess], "score": scores}).tau("guess", "score")
    held = "they held" if tau.low > 0 else "among these they said nothing"
    return (
        f"{said}. Kendall's tau of guess and score: {tau.value:+.2f} ({tau.low:+.2f} to {tau.high:+.2f}); {held}."
    )  # fmt: skip
