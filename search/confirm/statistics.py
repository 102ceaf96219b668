"""Whether one network is better than another, from several trainings of each: intervals of means and of differences.

What is said of a difference is said with its interval: *better* where all of it lies above 0, *not inferior* within a
margin where all of it lies above minus the margin. Trainings of equal seed see equal images in equal order, so they are
compared in pairs where they can be. Several comparisons that are to hold together share the error: `simultaneous`.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_STEPS = 200


@dataclass(frozen=True)
class Interval:
    """An estimate and what it may be. Without spread to tell it by (fewer than two values) the ends are infinite.

    Attributes:
        confidence: how often such an interval holds the truth.
        values: how many it rests on.
    """

    estimate: float
    low: float
    high: float
    confidence: float = CONFIDENCE
    values: int = 0

    @property
    def better(self) -> bool:
        """Of a difference: all of it lies above 0."""
        return self.low > 0

    @property
    def worse(self) -> bool:
        """Of a difference: all of it lies below 0."""
        return self.high < 0

    def not_inferior(self, margin: float) -> bool:
        """Of a difference: all of it lies above minus the margin."""
        return self.low > -margin

    def __str__(self) -> str:
        return f"{self.estimate:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def simultaneous(comparisons: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each of several intervals that are all to hold, together with a confidence (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, comparisons)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE, least_sd: float = 0.0) -> Interval:
    """Student's interval of a mean, of values that vary independently.

    Args:
        least_sd: a standard deviation that there is at least, as where values are rounded.
    """
    mean = statistics.fmean(values) if values else math.nan
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf, confidence, len(values))
    error = max(statistics.stdev(values), least_sd) / math.sqrt(len(values))
    reach = t_quantile((1 + confidence) / 2, len(values) - 1) * error
    return Interval(mean, mean - reach, mean + reach, confidence, len(values))


def difference(
    first: Mapping[int, float],
    second: Mapping[int, float],
    confidence: float = CONFIDENCE,
    least_sd: float = 0.0,
) -> Interval:
    """By how much the first is larger than the second, each a value for a seed.

    Seeds that both have are compared in pairs. Where there are fewer than two of these, the means are compared as those
    of two samples whose spreads differ (Welch, with the degrees of freedom rounded down).
    """
    if len(shared := sorted(first.keys() & second.keys())) >= 2:
        return mean_interval([first[seed] - second[seed] for seed in shared], confidence, least_sd)
    a, b = list(first.values()), list(second.values())
    lead = statistics.fmean(a) - statistics.fmean(b) if a and b else math.nan
    values = min(len(a), len(b))
    if values < 2:
        return Interval(lead, -math.inf, math.inf, confidence, values)
    parts = [max(statistics.variance(x), least_sd**2 / 2) / len(x) for x in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Interval(lead, lead, lead, confidence, values)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    reach = t_quantile((1 + confidence) / 2, max(1, math.floor(freedom))) * error
    return Interval(lead, lead - reach, lead + reach, confidence, values)


def rounding(images: float) -> float:
    """The standard deviation, in points, that a difference of two accuracies has because images are counted whole."""
    return 100 / images / math.sqrt(6) if images else 0.0


@functools.cache
def t_quantile(share: float, freedom: int) -> float:
    """The value that Student's t stays below with a probability of 0.5 to 1."""
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _t_below(middle, freedom) < share else (low, middle)
    return high


def _t_below(t: float, freedom: int) -> float:
    """Probability that Student's t, with a whole number of degrees of freedom, is below t >= 0: the finite series of
    Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    cos2, term, total = math.cos(angle) ** 2, 1.0, 0.0
    first = 1 if freedom % 2 else 0
    term = math.cos(angle) if first else 1.0
    for k in range(first, freedom - 1, 2):
        total += term
        term *= cos2 * (k + 1) / (k + 2)
    between = 2 / math.pi * (angle + math.sin(angle) * total) if first else math.sin(angle) * total
    return (1 + between) / 2
