"""Data sets of Hugging Face's `datasets`: from the hub, or from a folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from blockforge.errors import did_you_mean
from blockforge.extras import need
from blockforge.train.data import Options, Split, Want, digest_of, hold_out, mixed, source, val_share
from blockforge.train.errors import DataError
from blockforge.train.images import ImageSplit, StreamSplit

_VAL = ("validation", "val", "valid", "test")
_OPTIONS = ("config", "train", "val", "image", "label", "streaming", "classes")
_BUFFER = 10_000
"""Images among which a stream is shuffled."""


class RowReader:
    """Rows of a table with an image and a label."""

    def __init__(self, table: Any, image: str, label: str, rows: Sequence[int] | None = None) -> None:
        self.table, self.image, self.label, self.rows = table, image, label, rows

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    def __call__(self, index: int) -> tuple[Image.Image, int]:
        row = index if self.rows is None else self.rows[index]
        try:
            found = self.table[row]
            return found[self.image], int(found[self.label])
        except (OSError, ValueError, SyntaxError, TypeError) as e:
            raise DataError(f"cannot read row {row}: {e}") from None

    def digest(self) -> str:
        labels = self.table[self.label][:]
        rows = range(len(labels)) if self.rows is None else self.rows
        return digest_of(*(f"{row}\n{labels[row]}" for row in rows))


@source("hf", "hf:NAME", _OPTIONS)
def _hf(rest: str, options: Options) -> tuple[Sequence[str], Split, Split]:
    """A name on the hub, a folder that `load_dataset` reads, or one that `save_to_disk` wrote."""
    need("train", "datasets")
    streaming = options.get("streaming", "false").lower() in ("true", "1", "yes")
    splits = _load(rest, options, streaming)
    train_name = _named(splits, options, "train", ("train",))
    train = splits[train_name]
    image, label = _columns(train, options, rest)
    classes = _classes(train, label, options, streaming, rest)
    val_name = None if options.get("val", "").startswith(("0", ".")) else _named(splits, options, "val", _VAL, False)
    if streaming:
        if val_name is None:
            raise DataError(f"{rest} has no split to evaluate on\n  hint: a stream needs one, as in ?val={train_name}")
        made = [StreamSplit(_Stream(splits[n], image, label), _count(splits[n], n)) for n in (train_name, val_name)]
        return classes, made[0], made[1]
    if val_name is not None:
        kept = [ImageSplit(RowReader(splits[n], image, label)) for n in (train_name, val_name)]
    else:
        kept = [ImageSplit(RowReader(train, image, label, rows)) for rows in hold_out(train[label], val_share(options))]
    return classes, kept[0], kept[1]


class _Stream:
    """The samples of a streamed split, shared out among processes."""

    def __init__(self, table: Any, image: str, label: str) -> None:
        self.table, self.image, self.label = table, image, label

    def __call__(self, want: Want, first: int) -> Iterator[tuple[Image.Image, int]]:
        table = self.table
        if want.shuffle:
            table = table.shuffle(seed=mixed(want.seed, want.epoch) % 2**32, buffer_size=_BUFFER)
        try:
            for row in itertools.islice(table, want.rank + first * want.world, None, want.world):
                yield row[self.image], int(row[self.label])
        except (OSError, ValueError, SyntaxError) as e:
            raise DataError(f"the stream broke: {e}") from None


def _load(name: str, options: Options, streaming: bool) -> Any:
    """Splits by name."""
    import datasets

    try:
        if os.path.exists(os.path.join(name, "dataset_dict.json")):
            found: Any = datasets.load_from_disk(name)
            return {k: v.to_iterable_dataset() for k, v in found.items()} if streaming else found
        return datasets.load_dataset(name, options.get("config"), streaming=streaming)
    except Exception as e:  # the library raises whatever its readers and the network do
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise DataError(f"datasets cannot load '{name}': {first[:300]}") from None


def _named(splits: Any, options: Options, key: str, usual: tuple[str, ...], required: bool = True) -> Any:
    wanted = (options[key],) if key in options else usual
    found = next((name for name in wanted if name in splits), None)
    if found is None and (required or key in options):
        hint = did_you_mean(wanted[0], splits, "splits")
        raise DataError(f"there is no split '{wanted[0]}' ({key})\n  hint: {hint}")
    return found


def _columns(table: Any, options: Options, name: str) -> tuple[str, str]:
    import datasets

    features = table.features
    if features is None:
        raise DataError(f"{name} does not say its columns, so it cannot be streamed")
    images = [k for k, f in features.items() if isinstance(f, datasets.Image)]
    labels = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
    labels = labels or [k for k in ("label", "labels", "fine_label") if k in features]
    for key, found in (("image", images), ("label", labels)):
        if key in options and options[key] not in features:
            hint = did_you_mean(options[key], features, "columns")
            raise DataError(f"{name} has no column '{options[key]}'\n  hint: {hint}")
        if key not in options and not found:
            raise DataError(
                f"{name} has no column of {key}s; its columns: {', '.join(features)}\n  hint: ?{key}=COLUMN"
            )
    return options.get("image") or images[0], options.get("label") or labels[0]


def _classes(table: Any, label: str, options: Options, streaming: bool, name: str) -> list[str]:
    feature = table.features[label]
    if names := getattr(feature, "names", None):
        return list(names)
    if options.get("classes", "").isdigit():
        return [str(i) for i in range(int(options["classes"]))]
    if streaming:
        raise DataError(f"the labels of {name} have no names, and a stream cannot count them\n  hint: ?classes=N")
    try:
        return [str(i) for i in range(max(table[label]) + 1)]
    except TypeError:
        raise DataError(f"the column '{label}' of {name} holds no class numbers") from None


def _count(table: Any, split: str) -> int:
    """Images of a streamed split, as its description says."""
    infos = table.info.splits or {}
    if split in infos and infos[split].num_examples:
        return int(infos[split].num_examples)
    return sum(1 for _ in table)
