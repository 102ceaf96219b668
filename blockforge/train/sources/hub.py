"""Data sets of Hugging Face's `datasets`: from the hub, or from a folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from blockforge.errors import DataError, did_you_mean
from blockforge.extras import need
from blockforge.train.arrays import as_values
from blockforge.train.cutting import is_share
from blockforge.train.data import Opened, Problem, Split, Want, digest_of, mixed
from blockforge.train.images import ImageSplit, StreamSplit
from blockforge.train.labels import MOST_CLASSES, not_a_class, wrong_labels
from blockforge.train.opening import Options, source
from blockforge.train.pixels import as_meant, first_line
from blockforge.units import count_of

_USUAL = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}
_OPTIONS = ("config", "train", "val", "test", "image", "label", "streaming", "classes")
_BUFFER = 10_000
"""Images among which a stream is shuffled."""
_LOOK = 100
"""Labels of a stream that are looked at before it is used."""


class RowReader:
    """Rows of a table with an image and a label, which was checked.

    Args:
        name: of the table, for errors.
        rows: which ones.
    """

    def __init__(self, table: Any, image: str, label: str, name: str, rows: Sequence[int]) -> None:
        self.table, self.image, self.label, self.table_name, self.rows = table, image, label, name, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, index: int) -> tuple[Any, int]:
        try:
            row = self.table[self.rows[index]]
            return readable(row[self.image]), int(row[self.label])
        except Exception as e:  # whatever decoders and readers of tables raise
            raise DataError(f"cannot read {self.name(index)}: {first_line(e)}") from None

    def labels(self) -> list[int]:
        labels = self.table[self.label][:]
        return [int(labels[row]) for row in self.rows]

    def name(self, index: int) -> str:
        return f"row {self.rows[index]} of {self.table_name}"

    def only(self, rows: Sequence[int]) -> RowReader:
        chosen = [self.rows[row] for row in rows]
        return RowReader(self.table, self.image, self.label, self.table_name, chosen)

    def digest(self) -> str:
        labels = self.table[self.label][:]
        return digest_of(*(f"{row}\n{labels[row]}" for row in self.rows))


def readable(value: Any) -> Any:
    """What a cell holds, as `decode` takes it. Raises: ValueError if it is no image, and what decoders raise."""
    if isinstance(value, Image.Image):
        return as_meant(value)
    if value is None:
        raise ValueError("there is no image")
    array = np.asarray(value)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"{type(value).__name__} {list(array.shape)} is no image")
    return as_values(array)


@source("hf", "hf:NAME", _OPTIONS)
def _hf(rest: str, options: Options) -> Opened:
    """A name on the hub, a folder that `load_dataset` reads, or one that `save_to_disk` wrote."""
    need("train", "datasets")
    streaming = options.get("streaming", "false").lower() in ("true", "1", "yes")
    splits = _load(rest, options, streaming)
    names = {part: name for part in _USUAL if (name := _named(splits, options, part)) is not None}
    if names.get("val") == names.get("test"):
        names.pop("test", None)  # `?val=test`: what is chosen by tells no last word
    image, label = _columns(splits[names["train"]], options, rest)
    for name in names.values():
        _same_columns(splits, (names["train"], name), (image, label), rest)
    classes, named = _classes(splits[names["train"]], label, options, streaming, rest)
    problems: list[Problem] = []
    parts: dict[str, Split] = {}
    for part, name in names.items():
        table, title = splits[name], f"{rest}, split {name}"
        if streaming:
            parts[part] = StreamSplit(_Stream(table, image, label, title, len(classes)), _count(table, name))
        else:
            rows = _whole(table, image, label, title, len(classes), problems)
            parts[part] = ImageSplit(RowReader(table, image, label, title, rows))
    return Opened.of(classes, parts, named, problems)


def _whole(table: Any, image: str, label: str, name: str, classes: int, problems: list[Problem]) -> list[int]:
    """The rows with an image and a label; the others are added to the problems. Raises: DataError if there is none."""
    wrong = dict(wrong_labels(table[label][:], classes))
    if wrong and len(wrong) == len(table):
        row, reason = next(iter(wrong.items()))
        hint = "?val=SPLIT, ?label=COLUMN"
        raise DataError(f"{name}: none of the {len(table)} images has a label: {reason} in row {row}\n  hint: {hint}")
    if getattr(table, "_indices", None) is None:  # else rows of the table are not those of its columns
        wrong |= dict.fromkeys(np.flatnonzero(table.data.column(image).is_null()).tolist(), "there is no image")
    problems += [Problem(f"row {row} of {name}", wrong[row]) for row in sorted(wrong)]
    return [row for row in range(len(table)) if row not in wrong]


def _same_columns(splits: Any, names: tuple[str, str], columns: tuple[str, str], name: str) -> None:
    """Refuse a split to evaluate on that lacks a column, or whose labels count other classes."""
    first, second = (splits[n].features or {} for n in names)
    for column in columns:
        if column not in second:
            raise DataError(f"the split {names[1]} of {name} has no column '{column}'\n  hint: ?val=SPLIT")
    known = [getattr(features[columns[1]], "names", None) for features in (first, second)]
    if known[0] != known[1]:
        raise DataError(f"the splits {names[0]} and {names[1]} of {name} have other classes, or in another order")


class _Stream:
    """The samples of a streamed split, shared out among processes; the first ones' labels are looked at at once."""

    def __init__(self, table: Any, image: str, label: str, name: str, classes: int) -> None:
        self.table, self.image, self.label, self.name, self.classes = table, image, label, name, classes
        try:
            first = [row[label] for row in table.select_columns([label]).take(_LOOK)]
        except (OSError, ValueError) as e:
            raise DataError(f"the stream broke: {first_line(e)}") from None
        for row, reason in wrong_labels(first, classes)[:1]:
            raise DataError(f"{name}: {reason} in row {row}\n  hint: ?val=SPLIT and ?label=COLUMN name others")

    def __call__(self, want: Want, first: int) -> Iterator[tuple[Any, int]]:
        table = self.table
        if want.shuffle:
            table = table.shuffle(seed=mixed(want.seed, want.epoch) % 2**32, buffer_size=_BUFFER)
        try:
            for row in itertools.islice(table, want.rank + first * want.world, None, want.world):
                if reason := not_a_class(row[self.label], self.classes):
                    raise ValueError(reason)
                yield readable(row[self.image]), int(row[self.label])
        except Exception as e:  # whatever decoders, readers of tables and the network raise
            raise DataError(f"the stream {self.name} broke: {first_line(e)}") from None


def _load(name: str, options: Options, streaming: bool) -> Any:
    """Splits by name."""
    import datasets

    try:
        if os.path.exists(os.path.join(name, "dataset_dict.json")):
            loaded: Any = datasets.load_from_disk(name)
            return {k: v.to_iterable_dataset() for k, v in loaded.items()} if streaming else loaded
        return datasets.load_dataset(name, options.get("config"), streaming=streaming)
    except Exception as e:  # the library raises whatever its readers and the network do
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise DataError(f"datasets cannot load '{name}': {first[:300]}") from None


def _named(splits: Any, options: Options, key: str) -> str | None:
    """The split that is this part: the one named, else one of the usual names."""
    given = options.get(key)
    if given is not None and is_share(given):
        if key != "train":
            return None
        given = None
    wanted = (given,) if given is not None else _USUAL[key]
    split = next((name for name in wanted if name in splits), None)
    if split is None and (key == "train" or given is not None):
        hint = did_you_mean(wanted[0], splits, "splits")
        raise DataError(f"there is no split '{wanted[0]}' ({key})\n  hint: {hint}")
    return split


def _columns(table: Any, options: Options, name: str) -> tuple[str, str]:
    import datasets

    features = table.features
    if features is None:
        raise DataError(f"{name} does not say its columns, so it cannot be streamed")
    images = [k for k, f in features.items() if isinstance(f, datasets.Image)]
    labels = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
    labels = labels or [k for k in ("label", "labels", "fine_label") if k in features]
    for key, matching in (("image", images), ("label", labels)):
        if key in options and options[key] not in features:
            hint = did_you_mean(options[key], features, "columns")
            raise DataError(f"{name} has no column '{options[key]}'\n  hint: {hint}")
        if key not in options and not matching:
            raise DataError(
                f"{name} has no column of {key}s; its columns: {', '.join(features)}\n  hint: ?{key}=COLUMN"
            )
    return options.get("image") or images[0], options.get("label") or labels[0]


def _classes(table: Any, label: str, options: Options, streaming: bool, name: str) -> tuple[list[str], bool]:
    """The classes by label, and whether they have names."""
    if names := getattr(table.features[label], "names", None):
        return list(names), True
    number = count_of(options.get("classes", ""))
    if number is not None and number <= MOST_CLASSES:
        return [str(i) for i in range(number)], False
    if streaming:
        raise DataError(f"the labels of {name} have no names, and a stream cannot count them\n  hint: ?classes=N")
    labels = [value for value in table[label][:] if not_a_class(value, MOST_CLASSES) is None]
    if not labels:
        hint = "datasets' class_encode_column makes numbers of texts"
        raise DataError(f"the column '{label}' of {name} holds no class numbers\n  hint: {hint}")
    return [str(i) for i in range(max(labels) + 1)], False


def _count(table: Any, split: str) -> int:
    """Images of a streamed split, as its description says."""
    infos = table.info.splits or {}
    if split in infos and infos[split].num_examples:
        return int(infos[split].num_examples)
    return sum(1 for _ in table)
