"""The stages that a long edge names, against those that there are."""

from __future__ import annotations

from collections.abc import Iterator

from blockforge.errors import Path
from blockforge.spec.model import SkipSpec


def wrong_stages(skip: SkipSpec, stages: int) -> Iterator[tuple[Path, str, str]]:
    """Where a skip names a wrong stage: the place in it, what is wrong, what would be right."""
    count = f"stages count from 0 to {stages - 1}"
    if not 0 <= skip.from_ < stages:
        yield ("from",), f"there is no stage {skip.from_}", count
        return
    for i, target in enumerate(skip.to):
        if not 0 <= target < stages:
            yield ("to", i), f"there is no stage {target}", count
        elif target <= skip.from_:
            text = f"a skip leads forward, but stage {target} does not come after stage {skip.from_}"
            last = f"stage {skip.from_} is the last; let the skip start earlier"
            hint = f"stages {skip.from_ + 1} to {stages - 1} do" if skip.from_ + 1 < stages else last
            yield ("to", i), text, hint
        elif target in skip.to[:i]:
            yield ("to", i), f"stage {target} is listed twice", "list each stage once"
