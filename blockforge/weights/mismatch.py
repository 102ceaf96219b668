"""What a checkpoint lacks, has too much of, or has in another shape, in one error that says what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from blockforge.errors import WeightsError

_NAMED = 3
"""Tensors that are named of each kind of difference; the others are counted."""
_COMPARED = 2000
"""Names that a name is compared with, at most."""
_CLASSIFIER = re.compile(r"heads?\.(.*\.)?(fc|logits(_\d+)?)\.")
_OURS = re.compile(r"stages\.\d+\.layers\.\d+\..+")


class MismatchError(WeightsError):
    """Weights of another network.

    Attributes:
        differences: the text without the hint.
        shapes: the tensors of another shape, if nothing else is wrong.
    """

    def __init__(self, differences: str, hint: str | None = None, shapes: Collection[OtherShape] = ()) -> None:
        super().__init__(f"{differences}\n  hint: {hint}" if hint else differences)
        self.differences, self.hint, self.shapes = differences, hint, tuple(shapes)


class OtherShape(NamedTuple):
    """A tensor `held` under the name `source`, where the network has `wanted` under `key`."""

    source: str
    held: tuple[int, ...]
    key: str
    wanted: tuple[int, ...]


def check_ours(own: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
    """Compare tensors under our names with a network's state dict. Raises: MismatchError."""
    missing = [name for name in own if name not in held]
    left = [name for name in held if name not in own]
    shapes = [
        OtherShape(name, tuple(held[name].shape), name, tuple(wanted.shape))
        for name, wanted in own.items()
        if name in held and held[name].shape != wanted.shape
    ]
    check({name: name for name in own}, held, missing, left, shapes)


def check(
    wanted: Mapping[str, str],
    held: Collection[str],
    missing: Collection[str],
    left: Collection[str],
    shapes: Collection[OtherShape],
) -> None:
    """Raise what is wrong, if something is.

    Args:
        wanted: the names that the network asks for, in the checkpoint's layout -> ours.
        held: the names in the checkpoint.
        missing: of `wanted`, those whose lack matters.
        left: of `held`, those that the network has no place for.
    Raises: MismatchError.
    """
    kinds: list[tuple[str, Collection[Any], Callable[[Any], str]]] = [
        ("missing", missing, lambda name: _lacking(name, wanted[name], _like(name, left, held))),
        ("left over", left, lambda name: _surplus(name, _like(name, missing, wanted))),
        ("shape", shapes, _sizes),
    ]
    wrong = [kind for kind in kinds if kind[1]]
    if wrong:
        counts = ", ".join(
            f"{len(items)} {what if what != 'shape' else 'of another shape'}" for what, items, _ in wrong
        )
        lines = [line for what, items, say in wrong for line in _named(what, items, say)]
        title = f"the weights do not fit the network's {len(wanted)} tensors: {counts}"
        alone = () if missing or left else shapes
        raise MismatchError("\n  ".join([title, *lines]), _hint(wanted, missing, left, shapes), alone)


def looks_ours(names: Iterable[str]) -> bool:
    """Whether a checkpoint has our names: those of some network that we built."""
    return any(_OURS.fullmatch(name) for name in names)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is most like `name`, if one is like it."""
    ends = {other[-100:]: other for _, other in zip(range(_COMPARED), names, strict=False)}
    close = difflib.get_close_matches(name[-100:], ends, n=1, cutoff=0.6)
    return ends[close[0]] if close else None


def some(names: Collection[str], limit: int = _NAMED) -> str:
    """`a, b, c, ...`."""
    shown = [name[:100] for _, name in zip(range(limit), names, strict=False)]
    return ", ".join([*shown, "..."] if len(names) > limit else shown)


def _named(what: str, items: Collection[Any], say: Callable[[Any], str]) -> list[str]:
    lines = [f"{what}: {say(item)}" for _, item in zip(range(_NAMED), items, strict=False)]
    return [*lines, f"... and {len(items) - _NAMED} more"] if len(items) > _NAMED else lines


def _like(name: str, unmatched: Iterable[str], names: Iterable[str]) -> str | None:
    """The name on the other side that is most like this one; one that has no partner goes first."""
    return nearest(name, unmatched) or nearest(name, names)


def _lacking(name: str, ours: str, like: str | None) -> str:
    return f"{name[:200]}{f' (for {ours})' if ours != name else ''}; {_nearest_in('checkpoint', like)}"


def _surplus(name: str, like: str | None) -> str:
    return f"{name[:200]}; {_nearest_in('network', like)}"


def _nearest_in(side: str, like: str | None) -> str:
    return f"nearest in the {side}: {like[:200]}" if like is not None else f"nothing like it in the {side}"


def _sizes(pair: OtherShape) -> str:
    other = f" (for {pair.key})" if pair.key != pair.source else ""
    return f"{pair.source} is {pair.held} in the checkpoint, {pair.wanted} in the network{other}"


def _hint(
    wanted: Mapping[str, str], missing: Collection[str], left: Collection[str], shapes: Collection[OtherShape]
) -> str | None:
    """What would make the weights fit, where the differences tell."""
    settings: dict[str, str] = {}
    for s in shapes:
        if _CLASSIFIER.match(s.key) and s.held and s.held[1:2] == s.wanted[1:2]:
            settings[f"with {s.held[0]} classes"] = f"num_classes={s.held[0]}"
        elif s.key.startswith("stem.") and len(s.held) == 4 and s.held[2:] == s.wanted[2:] and s.held[0] == s.wanted[0]:
            settings[f"for images of {s.held[1]} channels"] = f"input.channels={s.held[1]}"
        else:
            return None
    for name in missing:
        if not _CLASSIFIER.match(wanted[name]):
            return None
        settings["without a classifier"] = "num_classes=0"
    if left or not settings:
        return None
    return f"these are the weights of a network {' and '.join(settings)}: set {' and '.join(settings.values())}"
