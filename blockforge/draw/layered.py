"""Boxes of any acyclic graph placed in rows, each below those that it reads, and ways between them around other boxes.

Rows go by the longest path. A way that passes rows by takes a place of its own in each, one for all ways that leave the
same box, since they carry the same map. In a row the order is that in which the fewest ways cross; each box then stands
as near as the others let it to the middle of what it is joined with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Key = tuple[str, int]
"""A box and its row; with another row: the place where its map passes that row by."""
Point = tuple[float, float]
_SWEEPS = 12
_MANY = 1500
"""Keys beyond which the order stays that of execution: no picture of so many is read."""
_PASS = 10.0
"""Room for a way that passes by."""


@dataclass(frozen=True)
class Placed:
    """Where boxes stand, by their left upper corner, and the points that ways go through, from foot to top."""

    corners: dict[str, Point]
    ways: dict[tuple[str, str], list[Point]]
    width: float
    height: float


@dataclass
class _Rows:
    """The rows of keys from left to right, and the joints between one row and the next."""

    rows: list[list[Key]]
    above: dict[Key, list[Key]] = field(default_factory=dict)
    below: dict[Key, list[Key]] = field(default_factory=dict)

    def join(self, upper: Key, lower: Key) -> None:
        if lower not in self.below.setdefault(upper, []):
            self.below[upper].append(lower)
            self.above.setdefault(lower, []).append(upper)

    def crossings(self) -> int:
        total = 0
        for upper, lower in pairwise(self.rows):
            place = {key: i for i, key in enumerate(lower)}
            ends = [[place[k] for k in self.below.get(key, ())] for key in upper]
            total += sum(a > b for i, left in enumerate(ends) for right in ends[i + 1 :] for a in left for b in right)
        return total


def place(
    sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]], gap: Point = (18.0, 26.0)
) -> Placed:
    """Place boxes of these widths and heights. `edges`: each from an earlier box to a later one.

    Args:
        gap: space between boxes, and between rows.
    """
    row = _late(longest_paths(sizes, edges), edges)
    rows = _rows(sizes, edges, row)
    if sum(map(len, rows.rows)) <= _MANY:
        _order(rows)
    width = {key: sizes[key[0]][0] if row[key[0]] == key[1] else _PASS for line in rows.rows for key in line}
    middle = _middles(rows, width, gap[0], {key for key in width if row[key[0]] != key[1]})
    left = min(middle[key] - width[key] / 2 for key in middle)
    heights = [max(sizes[n][1] for n, at in line if row[n] == at) for line in rows.rows]
    tops = [0.0]
    for height in heights:
        tops.append(tops[-1] + height + gap[1])
    corners = {
        name: (middle[name, at] - width[name, at] / 2 - left, tops[at] + (heights[at] - sizes[name][1]) / 2)
        for name, at in row.items()
    }
    ways = {}
    for source, target in edges:
        passes = [middle[source, at] - left for at in range(row[source] + 1, row[target])]
        points = [
            (x, y)
            for x, at in zip(passes, range(row[source] + 1, row[target]), strict=True)
            for y in (tops[at], tops[at] + heights[at])
        ]
        start = corners[source][0] + sizes[source][0] / 2, corners[source][1] + sizes[source][1]
        ways[source, target] = [start, *points, (corners[target][0] + sizes[target][0] / 2, corners[target][1])]
    right = max(middle[key] + width[key] / 2 for key in middle) - left
    return Placed(corners, ways, right, tops[-1] - gap[1])


def longest_paths(names: Iterable[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The row of each box. `names`: in the order they run."""
    row = dict.fromkeys(names, 0)
    into: dict[str, list[str]] = {name: [] for name in row}
    for source, target in edges:
        into[target].append(source)
    for name, sources in into.items():
        row[name] = max((row[source] + 1 for source in sources), default=0)
    return row


def _late(row: dict[str, int], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """What reads one map stands right above what reads it: one long way for all that read the same."""
    moved = dict(row)
    reads: dict[str, list[str]] = {name: [] for name in row}
    readers: dict[str, list[str]] = {name: [] for name in row}
    for source, target in edges:
        reads[target].append(source)
        readers[source].append(target)
    for name in reversed(row):
        if len(reads[name]) == 1 and readers[name]:
            moved[name] = min(moved[reader] for reader in readers[name]) - 1
    return moved


def _rows(names: Mapping[str, object], edges: Sequence[tuple[str, str]], row: Mapping[str, int]) -> _Rows:
    rows = _Rows([[] for _ in range(max(row.values()) + 1)])
    for name in names:
        rows.rows[row[name]].append((name, row[name]))
    for source, target in edges:
        at: Key = (source, row[source])
        for number in range(row[source] + 1, row[target]):
            here: Key = (source, number)
            if here not in rows.above:
                rows.rows[number].append(here)
            rows.join(at, here)
            at = here
        rows.join(at, (target, row[target]))
    return rows


def _order(rows: _Rows) -> None:
    """Sort each row by the mean place of what it is joined with, down and up again; the best order is kept."""
    best, fewest = [list(line) for line in rows.rows], rows.crossings()
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        joined = rows.below if sweep % 2 else rows.above
        for upper, line in pairwise(rows.rows[:: -1 if sweep % 2 else 1]):
            places = {key: i for i, key in enumerate(upper)}
            own = {key: i for i, key in enumerate(line)}
            line.sort(key=lambda key: _mean([places[k] for k in joined.get(key, ())], own[key]))
        if (crossings := rows.crossings()) < fewest:
            best, fewest = [list(line) for line in rows.rows], crossings
    rows.rows[:] = best


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _middles(rows: _Rows, width: Mapping[Key, float], gap: float, passing: set[Key]) -> dict[Key, float]:
    """Where each key stands: row by row as near to the weighted mean of its joints as order and widths allow."""
    middle: dict[Key, float] = {}
    for line in rows.rows:
        x = 0.0
        for i, key in enumerate(line):
            x = middle[key] = x + (width[line[i - 1]] + width[key]) / 2 + gap if i else 0.0
    for sweep in range(2 * _SWEEPS if len(middle) <= _MANY else 4):
        for line in rows.rows[:: -1 if sweep % 2 else 1]:
            wanted, weights = [], []
            for key in line:
                joined = [*rows.above.get(key, ()), *rows.below.get(key, ())]
                weight = [_weight(key, other, passing) for other in joined] or [1.0]
                ends = [middle[other] for other in joined] or [middle[key]]
                wanted.append(sum(w * x for w, x in zip(weight, ends, strict=True)) / sum(weight))
                weights.append(sum(weight))
            middle.update(zip(line, _spread(wanted, weights, [width[k] for k in line], gap), strict=True))
    _straighten(rows, middle, width, gap, passing)
    return middle


def _straighten(
    rows: _Rows, middle: dict[Key, float], width: Mapping[Key, float], gap: float, passing: set[Key]
) -> None:
    """Make each way that passes rows by straight, where there is room for that: outwards first."""
    room: dict[Key, tuple[float, float]] = {}
    lanes: dict[str, list[Key]] = {}
    for key in sorted(passing, key=lambda key: key[1]):
        lanes.setdefault(key[0], []).append(key)
    for lane in sorted(lanes.values(), key=lambda lane: -max(middle[key] for key in lane)):
        for key in lane:
            line = rows.rows[key[1]]
            i, most = line.index(key), float("inf")
            left = middle[line[i - 1]] + (width[line[i - 1]] + width[key]) / 2 + gap if i else -most
            right = middle[line[i + 1]] - (width[line[i + 1]] + width[key]) / 2 - gap if i + 1 < len(line) else most
            room[key] = left, right
        least, most = max(room[key][0] for key in lane), min(room[key][1] for key in lane)
        if least <= most + 0.01:
            x = min(max(max(middle[key] for key in lane), least), most)
            middle.update(dict.fromkeys(lane, x))


def _weight(a: Key, b: Key, passing: set[Key]) -> float:
    """How much it matters that a joint is straight: most inside a long way, least where it ends."""
    return (4.0, 0.01, 8.0)[(a in passing) + (b in passing)]


def _spread(wanted: Sequence[float], weights: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """Middles nearest to those wanted, by weighted squares, of boxes that keep their order and do not overlap.

    Without the boxes' own room this is a regression to values that do not fall: neighbours that would, are pooled.
    """
    room = [0.0]
    for left, right in pairwise(widths):
        room.append(room[-1] + (left + right) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of boxes
    for x, weight, before in zip(wanted, weights, room, strict=True):
        pool = (x - before, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, other, count = pools.pop()
            pool = ((mean * other + pool[0] * pool[1]) / (other + pool[1]), other + pool[1], count + pool[2])
        pools.append(pool)
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [x + before for x, before in zip(flat, room, strict=True)]
