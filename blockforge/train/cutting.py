"""Every data set has three parts: images to train on, to choose by (`val`), and for the last word (`test`).

Whoever chooses by some images (the best epoch, the better of two networks) finds the choice good on these images. So
what a choice is worth is told by images that chose nothing. A source with both parts gives both; of one with a single
part beside its training images that part is the test, whatever it is called, since it is what others report on; what
is missing is cut from the training images.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from blockforge.errors import DataError
from blockforge.train.data import Cuttable, Opened, Split, mixed

SHARE = 0.2
MOST = 10_000
"""Images that are cut where nobody says how many: more tell no two networks apart, and are missed in training."""
FEWEST = 3
"""Images of a class of which one is cut, even if the share is less."""
NONE = "none"
OPTIONS = ("val", "test", "train", "split_seed")


@dataclass(frozen=True)
class Cuts:
    """What the options of a data set say of its parts.

    Attributes:
        val, test: share of the training images; None: not said.
        train: share of what is left of them that is trained on; None: all.
        no_test: none are wanted, as in `?test=none`.
        seed: of the draw.
        names_val: they name the part to choose by, which is that then.
    """

    val: float | None = None
    test: float | None = None
    train: float | None = None
    no_test: bool = False
    seed: int = 0
    names_val: bool = False

    @classmethod
    def of(cls, options: Mapping[str, str], may_name: Collection[str] = ()) -> Cuts:
        """Those of a source's options. `may_name`: of `val`, `test` and `train`, what may name a part instead.

        Raises: DataError for what is no share.
        """
        seed = options.get("split_seed", "0")
        if not re.fullmatch(r"\d{1,9}", seed):
            raise DataError(f"split_seed={seed[:80]} is no seed\n  hint: as in ?split_seed=1")
        named = {key for key in may_name if key in options and not is_share(options[key])}
        val, test, train = (options.get(key) if key not in named else None for key in ("val", "test", "train"))
        no_test = test == NONE
        shares = _share("val", val), None if no_test else _share("test", test)
        if sum(share or 0 for share in shares) >= 1:
            raise DataError(f"val={val} and test={test} leave nothing to train on\n  hint: as in ?val=0.1&test=0.1")
        return cls(*shares, _share("train", train), no_test, int(seed), "val" in named)


def is_share(text: str) -> bool:
    """Whether an option says how much to cut, not what a part is called."""
    return text == NONE or text.startswith(("0", "."))


def with_parts(opened: Opened, cuts: Cuts, name: str) -> Opened:
    """The data with all parts that there can be. Raises: DataError if there is nothing to choose by."""
    val, test, notes = opened.val, opened.test, list(opened.notes)
    train: Split = opened.train
    if test is None and not (cuts.test or cuts.no_test or cuts.names_val) and isinstance(train, Cuttable):
        val, test = None, val
    val = None if cuts.val is not None else val
    test = None if cuts.test is not None or cuts.no_test else test
    own, whole = test is not None, len(train)
    if test is None and not cuts.no_test and isinstance(train, Cuttable):
        train, test = _cut(train, cuts.test, whole, mixed(cuts.seed, 1))
    if val is None and isinstance(train, Cuttable):
        train, val = _cut(train, cuts.val, whole, mixed(cuts.seed, 0))
        if own and cuts.val is None and ":" in name:
            cut_off = f"{len(val)} of the {whole} images to train on are kept to choose by"
            notes.append(f"{cut_off}; the part set apart is the test (?val=0.1: another share; ?test=none: no test)")
    if val is None:
        raise DataError(f"{name} has no images to choose by, and none can be cut from a stream\n  hint: ?val=SPLIT")
    if cuts.train is not None:
        if not isinstance(train, Cuttable):
            raise DataError(f"{name} is a stream: no share of it can be drawn\n  hint: leave out ?train={cuts.train:g}")
        train = train.only(cut(train.labels(), cuts.train, mixed(cuts.seed, 2))[1])
    return replace(opened, train=train, val=val, test=test, notes=notes)


def cut(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows that stay and rows that are cut, in their order: of each class the same share, drawn by `seed`."""
    members: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    taken: set[int] = set()
    for label, rows in members.items():
        count = min(max(int(len(rows) * share + 0.5), int(len(rows) >= FEWEST)), len(rows) - 1)
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(mixed(seed, label)))
        taken.update(rows[i] for i in drawn[:count].tolist())
    kept = [row for row in range(len(labels)) if row not in taken]
    return kept, sorted(taken)


def _cut(train: Cuttable, share: float | None, whole: int, seed: int) -> tuple[Split, Split]:
    """The images that stay, and those that are cut: a share of the `whole`."""
    wanted = whole * share if share is not None else min(whole * SHARE, MOST)
    rows = cut(train.labels(), min(wanted / max(len(train), 1), 1), seed)
    kept, held = (train.only(part) for part in rows)
    return kept, held


def _share(key: str, text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"0?\.\d+", text) or not float(text):
        raise DataError(f"{key}={text[:80]} is not a share of the images\n  hint: as in ?{key}=0.1")
    return float(text)
