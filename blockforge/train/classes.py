"""Which of a network's outputs is which class: by name, never by position."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import DataError, did_you_mean
from blockforge.notes import warn
from blockforge.train.data import Data
from blockforge.train.logs import RUN
from blockforge.train.pixels import not_a_file
from blockforge.weights.tensor_files import classes_in_header

_SHOWN = 5


def run_beside(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """How images were prepared in the run whose folder holds these weights, and its classes; empty if none says."""
    try:
        preprocess = json.loads((Path(weights).parent / RUN).read_text(encoding="utf-8"))["preprocess"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return preprocess if isinstance(preprocess, dict) else {}


def classes_of(weights: str | os.PathLike[str], num_classes: int) -> tuple[str, ...] | None:
    """The names of the classes of weights by label, from the file itself or from the run beside it; None: none says,
    or what is said is not of so many classes."""
    names = classes_in_header(weights) or run_beside(weights).get("classes")
    right = isinstance(names, list | tuple) and len(names) == num_classes and all(isinstance(n, str) for n in names)
    return tuple(names) if right and names else None


def known_classes(
    network: Backbone, weights: str | os.PathLike[str] | None, class_map: str | os.PathLike[str] | None
) -> tuple[str, ...] | None:
    """The names of a network's classes by label: from a file of names, else from its weights, else its own."""
    if class_map is not None:
        return read_class_map(class_map, network.num_classes)
    if weights is not None and (names := classes_of(weights, network.num_classes)) is not None:
        return names
    return network.classes


def read_class_map(file: str | os.PathLike[str], num_classes: int) -> tuple[str, ...]:
    """Names of classes, one a line, in the order of the labels, as timm's. Raises: DataError."""
    path = Path(file)
    if reason := not_a_file(path):
        raise DataError(f"{path} is {reason}\n  hint: a class map is a text of names, one a line, by label")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"cannot read {path}: {e}") from None
    if len(names) != num_classes or len({same_name(n) for n in names}) != num_classes:
        different = len({same_name(n) for n in names})
        text = f"{path} has {len(names)} names, {different} of them different; the network has {num_classes} classes"
        raise DataError(f"{text}\n  hint: one name a line, in the order of the network's labels")
    return tuple(names)


def listed(names: Sequence[str]) -> str:
    """The first names with their labels."""
    shown = ", ".join(f"{label} '{name}'" for label, name in enumerate(names[:_SHOWN]))
    return shown + ", ..." * (len(names) > _SHOWN)


def same_name(name: str) -> str:
    """A name as it is compared: however its letters were composed."""
    return unicodedata.normalize("NFC", name)


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether names of classes are equal and in one order."""
    return [same_name(n) for n in one] == [same_name(n) for n in other]


def labels_of(
    network: Backbone,
    data: Data,
    weights: str | os.PathLike[str] | None = None,
    class_map: str | os.PathLike[str] | None = None,
) -> tuple[tuple[str, ...] | None, list[int]]:
    """The names of a network's classes, where they are known, and its label of each class of the data.

    Raises: DataError for classes that the network does not know.
    """
    known = known_classes(network, weights, class_map)
    who = os.fspath(weights) if weights is not None else "the network"
    return known, labels_by_name(known, data, network.num_classes, who)


def labels_by_name(known: Sequence[str] | None, data: Data, num_classes: int, who: str) -> list[int]:
    """The network's label of each class of the data.

    What has no names on one side is taken in its order, which is said, where there are as many classes (or no more, of
    labels without names). Raises: DataError for classes that the network does not know.
    """
    count, in_order = len(data.classes), list(range(len(data.classes)))
    if known is None:
        if count == num_classes or (not data.named and count < num_classes):
            warn(f"{who} does not say its classes: label {listed(data.classes)} is assumed")
            return in_order
        text = f"{who} has {num_classes} classes, {data.name} has {count}, and the weights do not say which theirs are"
        raise DataError(f"{text}\n  hint: --class-map FILE names them, one a line, in the order of the labels")
    labels = {same_name(name): label for label, name in enumerate(known)}
    unknown = [name for name in data.classes if same_name(name) not in labels]
    by_name = [labels[same_name(name)] for name in data.classes] if not unknown else None
    if data.named:
        if by_name is None:
            raise _unknown(unknown, known, data, who)
        return by_name
    if by_name is not None and by_name != in_order:
        text = f"{data.name} has labels without names, and {who} has the classes {listed(known)}"
        raise DataError(f"{text}: which is which cannot be told\n  hint: npz archives name them in an array `classes`")
    if count > num_classes:
        raise DataError(f"{data.name} has {count} classes, {who} has {num_classes}")
    if by_name is None:
        warn(f"{data.name} has labels without names: they are taken for those of {who}, {listed(known)}")
    return in_order


def _unknown(unknown: list[str], known: Sequence[str], data: Data, who: str) -> DataError:
    named = ", ".join(f"'{name}'" for name in unknown[:_SHOWN]) + ", ..." * (len(unknown) > _SHOWN)
    counts = f"{who} has {len(known)} classes, {data.name} has {len(data.classes)}"
    text = f"{counts}, of which it does not know {len(unknown)}: {named}"
    hint = did_you_mean(unknown[0], known, "its classes")
    return DataError(f"{text}\n  hint: {hint}; --class-map FILE gives them other names, one a line, by label")
