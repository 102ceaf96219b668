"""Quantities as people write them: budgets (`5GFLOPs,30Mparams,200MB,20ms@cpu,1GFLOPs@deploy,4GB:train`) in, short
figures (`4.84G`) out.

One MAC is one multiply-add. Vision papers call that a FLOP, so `5GFLOPs` and `5GMACs` are the same limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from blockforge.errors import BudgetError, Diagnostic, Loc, Source, did_you_mean
from blockforge.optimizers import OPTIMIZERS

EXAMPLES = (
    "5GFLOPs or 5GMACs (multiply-adds of one image), 30Mparams, 200MB (peak activations), 20ms@cpu (latency), "
    "4GB:train,batch=64 (memory of training), 5GFLOPs@deploy (of the form that is deployed); 5GFLOPs,30Mparams"
)
_MAX_LENGTH = 200
_ITEM = re.compile(
    r"(?:(?P<name>[a-z]+)\s*=\s*)?(?P<number>\d{1,15}(?:\.\d{1,9})?|\.\d{1,9})\s*(?P<unit>[a-zA-Z]*(?:\s+[a-zA-Z]+)?)"
    r"\s*(?P<of>:[^@]*)?(?P<at>(?:@\s*[a-zA-Z]+(?::\d{1,3})?\s*)*)"
)
COSTS = ("macs", "params", "activation_bytes")
"""What a compiled graph tells, under the names of `Architecture`'s figures."""
LATENCY, DEVICES = "latency_ms", ("cpu", "cuda")
DEPLOY, DEPLOYED = "deploy", "deployed_"
"""What a limit on the form that is deployed ends with (`1GFLOPs@deploy`), and how the name of its field begins."""
LATENCY_DEPLOYED = DEPLOYED + LATENCY
TRAINING = "training_bytes"
STEP: dict[str, int | float | str] = {"batch": 64, "optimizer": "adamw", "checkpointing": False}
"""The training step whose memory is limited, where a budget says nothing of it."""
_MOST_IMAGES = 10**6
_NAMES = {
    "flops": "macs",
    "macs": "macs",
    "params": "params",
    "memory": "activation_bytes",
    "latency": LATENCY,
    "train": TRAINING,
}
"""What may be written before a limit: `latency=20ms@cpu`."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WORDS = {
    "flop": "macs",
    "flops": "macs",
    "mac": "macs",
    "macs": "macs",
    "param": "params",
    "params": "params",
}


def _units() -> dict[str, tuple[str, int | Fraction]]:
    """Unit in lower case -> what it limits, and the factor."""
    units: dict[str, tuple[str, int | Fraction]] = {
        p + word: (limit, 1000**power) for p, power in _POWERS.items() for word, limit in _WORDS.items()
    }
    units |= {f"{p}b": ("activation_bytes", 1000**power) for p, power in _POWERS.items() if p}
    units |= {f"{p}ib": ("activation_bytes", 1024**power) for p, power in _POWERS.items() if p}
    return units | {"us": (LATENCY, Fraction(1, 1000)), "ms": (LATENCY, Fraction(1)), "s": (LATENCY, Fraction(1000))}


_UNITS = _units()
_LIMITS_TRAINING = re.compile(r":\s*train|\btrain\s*=", re.IGNORECASE)

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|sec|min|h|d)?", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}


def parse_duration(duration: float | str) -> float:
    """Seconds, from a number of them or from text: `90s`, `5min`, `2h`.

    Raises: BudgetError if it is no time above 0.
    """
    match = _DURATION.fullmatch(str(duration).strip())
    seconds = float(match[1]) * _SECONDS[(match[2] or "s").lower()] if match else 0.0
    if not seconds > 0:
        raise BudgetError(f"'{duration}' is no length of time\n  hint: write 90s, 5min or 2h")
    return seconds


@dataclass(frozen=True)
class Budget:
    """Upper limits of a network; None: no limit."""

    macs: int | None = None
    """Multiply-adds of one image."""
    params: int | None = None
    """Learnt parameters."""
    activation_bytes: int | None = None
    """Peak of live activations, one float32 image."""
    latency_ms: float | None = None
    """Median milliseconds of one image in float32, measured on `device`."""
    device: str | None = None
    """`cpu`, `cuda` or `cuda:N`, where there is a limit on the latency."""
    deployed_macs: int | None = None
    """As `macs`, of the form that is deployed (`Architecture.deployed`); so are the four that follow."""
    deployed_params: int | None = None
    deployed_activation_bytes: int | None = None
    deployed_latency_ms: float | None = None
    deployed_device: str | None = None
    training_bytes: int | None = None
    """What one process holds while it trains in float32: see `Architecture.training_memory`."""
    batch: int | None = None
    """Images of its step, 64 where it is not given; `optimizer` and `checkpointing` are of the same step."""
    optimizer: str | None = None
    checkpointing: bool | None = None

    def __post_init__(self) -> None:
        """Raises: BudgetError for a limit that is none."""
        for name, value in self.as_dict().items():
            if name.endswith("device"):
                right, law = isinstance(value, str), "text, as in cpu"
            elif name == "optimizer":
                right, law = value in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"
            elif name == "checkpointing":
                right, law = isinstance(value, bool), "true or false"
            else:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                right, law = number and 0 < float(value) < float("inf"), "a number above 0"
            if not right:
                raise BudgetError(f"the budget's {name} is {value!r:.80}, and should be {law}\n  hint: {EXAMPLES}")

    @property
    def limits(self) -> dict[str, int]:
        """The limits on what a compiled graph tells, under the names of `Architecture`'s figures. Latency and training
        memory, which are not there, take longer and are asked last."""
        costs = {name: getattr(self, name) for name in (*COSTS, *(DEPLOYED + name for name in COSTS))}
        return {name: limit for name, limit in costs.items() if limit is not None}

    @property
    def latencies(self) -> dict[str, tuple[float, str]]:
        """The limits on measured latency, under the names of their fields: milliseconds, and the device."""
        limits = {
            LATENCY: (self.latency_ms, self.device),
            LATENCY_DEPLOYED: (self.deployed_latency_ms, self.deployed_device),
        }
        return {name: (ms, device or DEVICES[0]) for name, (ms, device) in limits.items() if ms is not None}

    @property
    def compiled(self) -> Budget:
        """The same budget with nothing but `limits`."""
        return Budget(**self.limits)  # type: ignore[arg-type]

    @property
    def step(self) -> dict[str, Any]:
        """The training step that `training_bytes` is of, as `Architecture.training_memory` takes it."""
        return {name: default if (own := getattr(self, name)) is None else own for name, default in STEP.items()}

    def as_dict(self) -> dict[str, int | float | str]:
        """What is set, exactly: `Budget(**known)` is the same budget."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        shown = [figure(name, limit) for name, limit in self.limits.items()]
        shown += [_marked(name, f"{ms:g} ms on {device}") for name, (ms, device) in self.latencies.items()]
        if self.training_bytes:
            shown.append(f"{figure(TRAINING, self.training_bytes)} of training memory ({step_in_words(self)})")
        return ", ".join(shown)


def step_in_words(budget: Budget) -> str:
    """The training step that a budget is of: `64 images, AdamW, checkpointing`."""
    step = budget.step
    words = [f"{step['batch']} image{'s' * (step['batch'] > 1)}", OPTIMIZERS[step["optimizer"]].title]
    return ", ".join([*words, *(["checkpointing"] if step["checkpointing"] else [])])


def figure(name: str, value: float) -> str:
    """A cost in words, under its name in `Architecture`: `4.84G MACs`, `32.0M params`, `21.7 MB`."""
    units, cost = {"macs": " MACs", "params": " params"}, name.removeprefix(DEPLOYED)
    return _marked(name, format_count(value) + units[cost] if cost in units else format_bytes(value))


def _marked(name: str, text: str) -> str:
    """A figure, with the form that it is of where that is not the trained one."""
    return f"{text} deployed" if name.startswith(DEPLOYED) else text


def parse_budget(budget: str | Sequence[str]) -> Budget:
    """`5GFLOPs,30Mparams,200MB,20ms@cpu` -> Budget; several texts are read as one. Prefixes are K, M, G and T; upper
    and lower case are the same. A latency without a device is the CPU's. `4GB:train` or `train=4GB` is of training
    memory; `batch=N`, `adamw`, `sgd` or `plain_sgd`, and `checkpointing` are then of its step. `@deploy` at the end of
    any other limit makes it one on the form that is deployed.

    Raises: BudgetError that points at the part which cannot be read.
    """
    text = budget if isinstance(budget, str) else ",".join(budget)
    if len(text) > _MAX_LENGTH:
        raise BudgetError(f"a budget has at most {_MAX_LENGTH} characters\n  hint: {EXAMPLES}")
    text = text if text.isprintable() else re.sub(r"[^ -~]", "?", text)
    limits: dict[str, int | float | str] = {}
    column, first_option = 0, None
    for part in text.split(","):
        start, item = column + len(part) - len(part.lstrip()), part.strip()
        option = _parse_option(item, text, start)
        item_limits = option or _parse_item(item, text, start)
        if known := next((name for name in item_limits if name in limits), None):
            what = f"the {known} of training is given" if option else f"there is a limit on {known}"
            raise _error(f"{what} already", text, start, len(item))
        if option and first_option is None:
            first_option = start, item
        limits |= item_limits
        column += len(part) + 1
    if TRAINING in limits:
        limits = STEP | limits
    elif first_option is not None:
        start, item = first_option
        what = f"'{item}' is of training memory, on which there is no limit"
        raise _error(what, text, start, len(item), hint=f"4GB:train,{item}")
    return Budget(**limits)  # type: ignore[arg-type]


def _parse_option(item: str, text: str, start: int) -> dict[str, int | str]:
    """What an item says of a training step, under the names of `Budget`'s fields; nothing: it is no such item."""
    key, equals, value = (part.strip().lower() for part in item.partition("="))
    if not equals:
        return {"optimizer": key} if key in OPTIMIZERS else {key: True} if key == "checkpointing" else {}
    if key not in STEP:
        return {}
    at, length = (start + item.lower().rindex(value), len(value)) if value else (start, len(item))
    if key == "batch":
        if not 0 < (images := count_of(value) or 0) <= _MOST_IMAGES:
            raise _error(f"'{value}' is no number of images, 1 to {_MOST_IMAGES}", text, at, length)
        return {key: images}
    known = {name: name for name in OPTIMIZERS} if key == "optimizer" else {"true": True, "false": False}
    if value not in known:
        raise _error(f"'{value}' is no {key} of training", text, at, length, hint=did_you_mean(value, known))
    return {key: known[value]}


def _check_option(item: str, text: str, start: int) -> None:
    """Where training memory is limited, a word that is no limit is taken for an unknown option of its step."""
    word = re.fullmatch(r"([a-zA-Z_]\w*)\s*(?:=.*)?", item)
    if word and word[1].lower() not in _NAMES and _LIMITS_TRAINING.search(text):
        what = f"'{word[1]}' is neither a limit nor an option of training"
        raise _error(what, text, start, len(word[1]), hint=did_you_mean(word[1], (*STEP, *OPTIMIZERS), "options"))


def _parse_item(item: str, text: str, start: int) -> dict[str, int | float | str]:
    """One limit, under the names of `Budget`'s fields."""
    match = _ITEM.fullmatch(item)
    if not item:
        raise _error("there is no limit here", text, start, 1)
    if match is None or not match["unit"]:
        _check_option(item, text, start)
    if match is None:
        what = "is below 0" if item.startswith("-") else "is not a number and a unit"
        raise _error(f"'{item}' {what}", text, start, len(item))
    unit, key = match["unit"], "".join(match["unit"].lower().split())
    if key not in _UNITS:
        what = f"the unit '{unit}' is not known" if key not in _POWERS else f"'{item}' has no unit"
        raise _error(what, text, start + match.start("unit") if unit else start, len(unit) or len(item))
    limit, factor = _UNITS[key]
    of = (match["of"] or "").strip()
    if of and "".join(of.lower().split()) != ":train":
        what = f"'{of}' is not known after a limit; there is :train"
        raise _error(what, text, start + match.start("of"), len(of))
    if of and limit != "activation_bytes":
        raise _error("only memory is one of training", text, start + match.start("of"), len(of))
    if limit == "activation_bytes" and (of or match["name"] == "train"):
        limit, unit = TRAINING, unit + of
    value = Fraction(match["number"]) * factor
    if match["name"] and _NAMES.get(match["name"]) != limit:
        known = ", ".join(_NAMES)
        what = f"'{match['name']}' is not what {unit} measure" if match["name"] in _NAMES else f"limits are on {known}"
        raise _error(what, text, start, len(match["name"]))
    device, is_deployed = _places(match, limit, text, start)
    if (value if limit == LATENCY else int(value)) <= 0:
        raise _error(f"'{item}' leaves nothing", text, start, len(item))
    form = DEPLOYED if is_deployed else ""
    if limit == LATENCY:
        return {form + LATENCY: float(value), f"{form}device": device or DEVICES[0]}
    return {form + limit: int(value)}


def _places(match: re.Match[str], limit: str, text: str, start: int) -> tuple[str | None, bool]:
    """What stands behind the `@`s of a limit: a device, and whether it is of the form that is deployed."""
    device, is_deployed = None, False
    for at in re.finditer(r"@\s*([a-z0-9:]+)", match["at"].lower()):
        word, what = at[1], None
        if word == DEPLOY:
            what = "training is of the form that is trained" if limit == TRAINING else None
            what, is_deployed = "@deploy is said already" if is_deployed else what, True
        elif limit == LATENCY and word.partition(":")[0] not in DEVICES:
            what = f"no device is named '{word}'; there are cpu, cuda and cuda:N, and of any @deploy"
        elif limit != LATENCY:
            known = word.partition(":")[0] in DEVICES
            what = "only a latency is one of a device" if known else f"'@{word}' is not known; there is @deploy"
        else:
            what, device = "the device is said already" if device is not None else None, word
        if what is not None:
            raise _error(what, text, start + match.start("at") + at.start(1), len(word))
    return device, is_deployed


def _error(message: str, text: str, start: int, length: int, hint: str = EXAMPLES) -> BudgetError:
    loc = Loc(Source("budget", (text,)), 1, start + 1, length)
    return BudgetError(Diagnostic("budget", message, loc=loc, hint=hint).render())


def count_of(text: str) -> int | None:
    """The whole number that a text is, of at most 12 digits; None: it is none."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,12}\s*", text) else None


def format_count(value: float) -> str:
    """Three significant figures and a prefix: 4838833152 -> `4.84G`, 32037352 -> `32.0M`, 950 -> `950`."""
    return _scaled(value, ("", "K", "M", "G", "T", "P"))


def format_bytes(value: float) -> str:
    """21676032 -> `21.7 MB`, as powers of 1000."""
    return _scaled(value, (" B", " KB", " MB", " GB", " TB", " PB"))


def _scaled(value: float, suffixes: tuple[str, ...]) -> str:
    power = 0
    while power < len(suffixes) - 1 and abs(value) >= 999.5:
        value, power = value / 1000, power + 1
    if power == 0:
        return f"{value:.0f}{suffixes[0]}"
    text = next(t for digits in (2, 1, 0) if len((t := f"{value:.{digits}f}").lstrip("-")) <= 4)
    return text + suffixes[power]
