"""Scores in a file that grows as they are found, so that a run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blockforge.console.progress import counting
from blockforge.errors import RunError
from blockforge.files import append_text, cut_torn_line
from blockforge.swapping.scores import Score
from blockforge.swapping.shared import alone, in_turns
from blockforge.swapping.slots import Alternative

SCORES = "scores.jsonl"
TOGETHER = 32
"""Alternatives that one process takes at a time."""


def recorded(
    alternatives: Sequence[Alternative],
    score: Callable[[Alternative], Score],
    folder: Path | None,
    run: Mapping[str, Any],
    progress: bool = False,
) -> list[Score]:
    """The score of each alternative: from the folder where it is there, else computed and put there. Several processes
    share the work.

    Args:
        run: what the scores depend on beside the alternatives.
    Raises: OutputError; RunError as `known_scores`.
    """
    known: dict[str, Score] = {}
    parts = [alternatives[i : i + TOGETHER] for i in range(0, len(alternatives), TOGETHER)]
    with counting("alternatives scored", len(alternatives), progress) as advance:
        for part in in_turns(parts, folder, "scores"):
            known |= known_scores(folder, run)
            for alternative in part:
                if (key := _key(alternative)) not in known:
                    known[key] = score(alternative)
                    _put(folder, key, known[key])
                advance()
    return [known[_key(alternative)] for alternative in alternatives]


def known_scores(folder: Path | None, run: Mapping[str, Any]) -> dict[str, Score]:
    """The scores in a folder, which is begun if it has none.

    Args:
        run: what the scores depend on beside the alternatives.
    Raises: RunError if they are of another run, or are none; OutputError.
    """
    if folder is None:
        return {}
    file = folder / SCORES
    with alone(folder, SCORES):
        cut_torn_line(file)
        if not file.exists() or not file.stat().st_size:
            append_text(file, json.dumps(run) + "\n")
        text = file.read_text(encoding="utf-8")
    first, *rows = text.split("\n")
    try:
        before = json.loads(first)
        known = {key: Score(**values) for key, values in map(json.loads, filter(None, rows))}
    except (ValueError, TypeError) as e:
        raise RunError(f"{file} holds no scores: {e}\n  hint: another --out") from None
    if before != run:
        other = ", ".join(sorted(k for k in run if before.get(k) != run[k]))
        raise RunError(
            f"{folder} holds the scores of another run: other {other}\n  hint: another --out, or remove {file}"
        )
    return known


def _put(folder: Path | None, key: str, score: Score) -> None:
    if folder is not None:
        with alone(folder, SCORES):
            append_text(folder / SCORES, json.dumps([key, asdict(score)]) + "\n")


def _key(alternative: Alternative) -> str:
    said = f"{alternative.slot.name}: {alternative.label}"
    return f"{said} {alternative.mark}" if alternative.mark else said
