"""A step that does not fit into memory goes through in halves: the same step, as the recipe's `accumulate` makes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_net import small_net

import blockforge as bf
from blockforge.train import Data, fit
from blockforge.train.loop import Trainer, is_out_of_memory

NET = small_net(name="one")
RECIPE = {"epochs": 1, "lr": 0.01, "batch_size": 24}


def limited(monkeypatch: pytest.MonkeyPatch, images: int, error: Callable[[], Exception]) -> list[int]:
    """Make more than so many images at once fail; the sizes that were tried."""
    tried: list[int] = []
    accumulated = Trainer._accumulated

    def _accumulated(self: Trainer, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        tried.append(-(-len(x) // self.pieces))
        if tried[-1] > images:
            raise error()
        return accumulated(self, x, targets)

    monkeypatch.setattr(Trainer, "_accumulated", _accumulated)
    return tried


def weights(data: Data, **recipe: int) -> dict[str, torch.Tensor]:
    return fit(NET, data, {**RECIPE, **recipe}, overrides={"num_classes": len(data.classes)}).weights


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError, MemoryError, lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_the_batch_is_halved_once_and_said(
    data: Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Callable[[], Exception]
) -> None:
    expected = weights(data, accumulate=2)
    tried = limited(monkeypatch, 12, error)
    found = weights(data)
    assert tried == [24, 12, 12, 12]
    told = capsys.readouterr().err
    assert told.count("out of memory with 24 images at once: a batch goes through in 2 parts from here on") == 1
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_does_not_fit_in_halves_either_fails(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limited(monkeypatch, 6, torch.OutOfMemoryError)
    with pytest.raises(torch.OutOfMemoryError):
        weights(data)
    assert tried == [24, 12]


def test_other_errors_are_no_lack_of_memory(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limited(monkeypatch, 12, lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        weights(data)
    assert tried == [24]
    assert not is_out_of_memory(bf.SpecError([]))
