"""What trainers wrap weights in: keys of a checkpoint, prefixes and infixes of names, moving averages beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from blockforge.errors import WeightsError, did_you_mean
from blockforge.weights.mismatch import some

Known = Callable[[set[str]], bool]
"""Whether names are of a layout that we know."""

_WRAPPERS = (
    "model", "state_dict", "model_state", "model_state_dict", "module", "net", "network", "params", "weights",
    "backbone", "encoder", "student",
)  # fmt: skip
"""Keys and prefixes of the weights as they are trained, the likelier first."""
_AVERAGE = re.compile(
    r"(.*[_.-])?(ema|averaged?|averaging|avg|swa|polyak|shadow|teacher|target|momentum|key_encoder|encoder_k)([_.-].*)?"
    r"|ema.*",
    re.I,
)
"""Keys and prefixes of a moving average: what the published accuracy is of."""
_OTHER = re.compile(r"(optim|opt$|lr_|sched|scaler|grad_|amp$|rng|loops?$|hyper|criterion|loss)", re.I)
"""Keys of what is no network."""
_INFIXES = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module"})
"""Parts of names that DistributedDataParallel, torch.compile, FSDP and checkpoint wrappers put in, at any depth."""
_DEPTH = 5
"""Parts of a prefix, at most."""
_KEYS = 8
"""Keys on the way to the tensors, at most: plug-ins of a trainer keep averages deep inside."""


@dataclass(frozen=True)
class Part:
    """Weights of one network in a checkpoint.

    Attributes:
        key: the way to them; empty at the top.
        prefix: what their names begin with.
        tensors: by name, without the prefix.
        others: how many other tensors stand beside them, and the first names.
    """

    key: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()

    @property
    def average(self) -> bool:
        return self.average_by_prefix or _is_average(self.key)

    @property
    def average_by_prefix(self) -> bool:
        """Among the names of one state dict it is the average."""
        return _is_average(self.prefix.split("."))

    @property
    def rank(self) -> int:
        """The lower the likelier."""
        names = [*self.key, *self.prefix.split(".")]
        named = [n for n in names if n]
        return max((_WRAPPERS.index(n) if n in _WRAPPERS else len(_WRAPPERS) for n in named), default=-1)

    @property
    def option(self) -> str:
        """How a user asks for them."""
        named = (("--key", ".".join(self.key)), ("--prefix", self.prefix))
        return " ".join(f"{option} {value}" for option, value in named if value) or "what has no prefix"


def unwrap(
    checkpoint: Any, known: Known, key: str | None = None, prefix: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the one network that a checkpoint holds, and what is to be said of the choice.

    Where trained weights and their moving average are both there, it is the average.

    Args:
        key: where to look, `model_ema` or `ema.state_dict`.
        prefix: what the names begin with; others are left out.
    Raises: WeightsError if there are no tensors, or several networks and nothing tells them apart.
    """
    places = list(_dicts(_below(checkpoint, key), tuple(key.split(".")) if key else (), set()))
    if not places:
        if not isinstance(checkpoint, Mapping):
            raise WeightsError(f"it holds a {type(checkpoint).__name__}, not a state dict")
        keys = some([str(k) for k in checkpoint], 8)
        raise WeightsError(
            f"the checkpoint holds no tensors; its keys: {keys or 'none'}\n"
            f"  hint: tensors are looked for by name at its top and below keys such as {', '.join(_WRAPPERS[:3])}"
        )
    plain = [_without_infixes(place, tensors, prefix) for place, tensors in places]
    if prefix:
        plain = [part for part in plain if part.tensors]
        if not plain:
            begin = {name.partition(".")[0] for _, tensors in places for name in tensors}
            raise WeightsError(f"no name begins with '{prefix}'; {did_you_mean(prefix, begin, 'they begin with')}")
    parts = [p for part in plain for p in _networks(part, known)]
    if not parts:
        return _unknown(plain), []
    chosen = _chosen(parts)
    lines = _choice_in_words(chosen, [p for p in parts if p is not chosen])
    if not chosen.average and (lists := [place for place in _nameless(checkpoint) if _is_average(place)]):
        place = ".".join(lists[0])
        lines.append(f"took the raw weights: the moving average at the key {place} is a list of tensors without names")
    return chosen.tensors, lines


def _below(checkpoint: Any, key: str | None) -> Any:
    """What stands at a key, written `a` or `a.b`."""
    at, left = checkpoint, key or ""
    while left:
        children = _children(at)
        name = next((n for n in sorted(children, key=len, reverse=True) if f"{left}.".startswith(f"{n}.")), None)
        if name is None or not _children(children[name]):
            raise WeightsError(f"no weights at the key '{key}'; {did_you_mean(left, _ways(at), 'keys')}")
        at, left = children[name], left[len(name) + 1 :]
    return at


def _ways(at: Any) -> list[str]:
    return [k for k, v in _children(at).items() if _children(v)]


def _children(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if isinstance(k, str)}
    return {str(i): v for i, v in enumerate(value)} if isinstance(value, list | tuple) else {}


def _dicts(
    value: Any, place: tuple[str, ...], seen: set[int], depth: int = 0
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every state dict in a checkpoint: a mapping that holds tensors by name. `seen`: objects that need no look."""
    children = _children(value)
    seen.add(id(value))
    if isinstance(value, Mapping):
        tensors = {k: v for k, v in children.items() if isinstance(v, Tensor)}
        if tensors:
            yield place, tensors
    if depth < _KEYS:
        for name, child in children.items():
            if not isinstance(child, Tensor) and not _OTHER.match(name) and id(child) not in seen:
                yield from _dicts(child, (*place, name), seen, depth + 1)


def _nameless(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a checkpoint holds lists of tensors."""
    if isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(v, Tensor) for v in value):
        yield place
    elif len(place) < _KEYS:
        for name, child in _children(value).items():
            if not _OTHER.match(name):
                yield from _nameless(child, (*place, name))


def _is_average(parts: Iterable[str]) -> bool:
    return any(_AVERAGE.fullmatch(part) for part in parts)


def _without_infixes(place: tuple[str, ...], tensors: dict[str, Tensor], prefix: str | None) -> Part:
    """The tensors below a prefix, under names that no wrapper changed."""
    if not prefix:
        return Part(place, "", _plain_names(tensors))
    whole = prefix if prefix.endswith(".") else f"{prefix}."
    spellings = ((whole, tensors), (whole, _plain_names(tensors)), (prefix, tensors))
    for begin, named in spellings:
        if below := {k.removeprefix(begin): v for k, v in named.items() if k.startswith(begin)}:
            return Part(place, begin, _plain_names(below))
    return Part(place, prefix, {})


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put in, if they stay different, and without an average's own counter."""
    tensors = _without_counters(tensors) or tensors
    plain = {".".join(p for p in name.split(".") if p not in _INFIXES): v for name, v in tensors.items()}
    return plain if len(plain) == len(tensors) else tensors


def _without_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without numbers that belong to no layer, such as the `n_averaged` of an average."""
    return {name: v for name, v in tensors.items() if v.ndim or "." in name}


def _networks(part: Part, known: Known) -> list[Part]:
    """The networks of known layouts among the names of a state dict, each below a prefix of its own."""
    groups: dict[str, dict[str, Tensor]] = {"": part.tensors}
    for name, tensor in part.tensors.items():
        parts = name.split(".")
        for end in range(1, min(_DEPTH, len(parts))):
            groups.setdefault(".".join(parts[:end]) + ".", {})[".".join(parts[end:])] = tensor
    prefixes = [prefix for prefix, held in groups.items() if known(set(held))]
    networks = []
    for prefix in prefixes:
        inside = [p for p in prefixes if p != prefix and p.startswith(prefix)]
        own = {k: v for k, v in groups[prefix].items() if not any((prefix + k).startswith(p) for p in inside)}
        if not known(set(own)):
            continue
        rest = (n for n, v in part.tensors.items() if v.ndim and not n.startswith(tuple(p for p in prefixes if p)))
        others = tuple(rest) if "" not in prefixes else ()  # whose they are else is known
        networks.append(Part(part.key, part.prefix + prefix, _without_counters(own), others))
    return networks


def _chosen(parts: list[Part]) -> Part:
    """The moving average, where there is one; else the likeliest. Raises: WeightsError if that is not one."""
    told_apart = {p.key for p in parts if p.average_by_prefix}
    averages = [p for p in parts if (p.average_by_prefix if p.key in told_apart else p.average)]
    candidates = averages or parts
    best = min(p.rank for p in candidates)
    first = [p for p in candidates if p.rank == best]
    if len(first) > 1:
        options = "; ".join(p.option for p in first[:6])
        raise WeightsError(f"the checkpoint holds {len(first)} networks\n  hint: say which: {options}")
    return first[0]


def _choice_in_words(chosen: Part, left: list[Part]) -> list[str]:
    """Lines about what was not taken."""
    lines = []
    if chosen.average and (raw := [p for p in left if not p.average]):
        lines.append(f"took the moving average ({chosen.option}), not the raw weights ({raw[0].option})")
    elif left:
        lines.append(f"took {chosen.option}; also there: {'; '.join(p.option for p in left[:3])}")
    if chosen.others:
        lines.append(f"took the names that begin with {chosen.prefix} and left out {some(chosen.others)}")
    return lines


def _unknown(parts: list[Part]) -> dict[str, Tensor]:
    """The likeliest state dict of none that is known, without prefixes that all names share."""
    ranked = sorted(parts, key=lambda p: (p.rank == -1 and len(parts) > 1, p.rank, -len(p.tensors)))
    tensors = ranked[0].tensors
    while len({name.partition(".")[0] for name in tensors}) == 1 and all("." in name for name in tensors):
        first = next(iter(tensors)).partition(".")[0]
        if first not in _WRAPPERS:
            break
        tensors = {name.partition(".")[2]: v for name, v in tensors.items()}
    return tensors
