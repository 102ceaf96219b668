"""One image that cannot be read saves the run before it ends it, and the run goes on once it is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from blockforge.train import Data, DataError, fit
from blockforge.train.checkpoint import CHECKPOINT
from blockforge.train.data import Batch, Want

QUICK = {"epochs": 2, "batch_size": 4, "lr": 0.01, "workers": 0, "normalize": "imagenet"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_broken_file_saves_the_run(net: Any, folder: Callable[..., Path], tmp_path: Path, split: str) -> None:
    root = folder("train/a", "train/b", "val/a", "val/b", images=9)
    data, run = f"imagefolder:{root}?test=none", tmp_path / "run"
    whole = fit(net, data, QUICK)
    file = root / split / "b" / "5.png"
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"(?s)b/5\.png.*\n  the run is saved after step [1-4]: once that is") as e:
        fit(net, data, QUICK, out=run)
    assert (run / CHECKPOINT).exists()
    assert "the same command goes on" in str(e.value)
    with pytest.raises(DataError, match=r"b/5\.png"):
        fit(net, data, QUICK, out=run)
    file.write_bytes(good)
    result = fit(net, data, QUICK, out=run)
    assert [r.epoch for r in result.history] == [1, 2]
    assert [r.train_loss for r in result.history] == [r.train_loss for r in whole.history]
    assert result.accuracies == whole.accuracies
    assert all(torch.equal(result.weights[k], v) for k, v in whole.weights.items())


def test_a_run_without_a_folder_says_only_what_is_broken(net: Any, data: Data, fast: Any) -> None:
    class Broken:
        crops = False

        def __len__(self) -> int:
            return 72

        def batches(self, want: Want) -> Iterator[Batch]:
            for number, batch in enumerate(data.train.batches(want)):
                if number == 2:
                    raise DataError("image 7 is broken")
                yield batch

        def statistics(self, *given: Any) -> Any:
            return data.train.statistics(*given)

        def digest(self) -> str:
            return data.train.digest()

    with pytest.raises(DataError, match=r"^image 7 is broken$"):
        fit(net, Data("x", data.classes, Broken(), data.val), fast)
