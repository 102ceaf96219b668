"""What a short training is worth: the record that a search reads, and what is chosen from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blockforge.errors import SearchError
from blockforge.search.fidelity.recall import good, share_needed
from blockforge.search.fidelity.record import Fidelity, Rung, read_fidelity, write_fidelity


def record(*lows: float, noise: float | None = 0.5, seconds: tuple[float, ...] = (1.0, 4.0)) -> Fidelity:
    rungs = [Rung(steps=20 * 4**i, tau=min(1.0, low + 0.1), low=low, high=min(1.0, low + 0.2), seconds=s)
             for i, (low, s) in enumerate(zip(lows, seconds, strict=True))]  # fmt: skip
    top = Rung(steps=20 * 4 ** len(rungs), tau=1.0, low=1.0, high=1.0, seconds=16.0)
    noises, spread = (noise,) * (len(rungs) + 1), (1.0,) * (len(rungs) + 1)
    return Fidelity(space="s", data="d", recipe="micro", budget="1M MACs", networks=48, rungs=(*rungs, top),
                    seed_noise=noises, spread=spread)  # fmt: skip


def test_a_rung_that_ranks_nothing_is_not_chosen() -> None:
    assert record(-0.1, -0.02).choose() == (320, 1, 1)
    assert record(-0.1, 0.6).choose().steps == 80


def test_a_cheap_rung_that_ranks_well_is_chosen_over_a_dear_one_that_ranks_as_well() -> None:
    choice = record(0.6, 0.6).choose()
    assert choice.steps == 20
    assert choice.eta > 1


def test_a_rung_that_throws_out_the_good_is_not_chosen_however_well_it_ranks() -> None:
    known = record(0.6, 0.6)

    def keeping(*shares: float) -> Fidelity:
        rungs = (rung.model_copy(update={"keep": share}) for rung, share in zip(known.rungs, shares, strict=False))
        return known.model_copy(update={"rungs": (*rungs, known.top)})

    assert keeping(0.1, 0.1).choose() == known.choose()
    assert keeping(0.4, 0.51).choose()[::2] == (20, 2)
    assert keeping(0.51, 0.4).choose()[::2] == (80, 2)
    assert keeping(0.51, 0.51).choose() == (320, 1, 1)


def test_the_share_that_holds_nine_of_ten_good_ones() -> None:
    seen, is_good = np.arange(20.0, 0, -1), np.arange(20) < 10
    assert share_needed(seen, is_good) == 0.45
    assert share_needed(-seen, is_good) == 0.95
    assert good(np.array([90.0, 89.1, 89.0])).tolist() == [True, True, False]


def test_repeats_are_chosen_where_seeds_are_what_blurs() -> None:
    assert record(0.3, -0.1, noise=0.9).choose().repeats > 1
    assert record(0.3, -0.1, noise=0.0).choose().repeats == 1
    assert record(0.3, -0.1, noise=None).choose().repeats == 1


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_fidelity(record(0.1, 0.5), file := tmp_path / "fidelity.json")
    assert read_fidelity(file) == record(0.1, 0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no record"),
        ("[]", "is no record"),
        ('{"space": "s"}', "is no record of fidelity: data"),
        (None, "cannot read"),
    ],
)
def test_another_file_is_refused_in_a_line(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "f.json").write_text(text)
    with pytest.raises(SearchError, match=told):
        read_fidelity(tmp_path / "f.json")


def test_rungs_ascend() -> None:
    with pytest.raises(ValueError, match="ascending"):
        Fidelity.model_validate(
            record(0.1, 0.5).model_copy(update={"rungs": record(0.1, 0.5).rungs[::-1]}).model_dump()
        )
