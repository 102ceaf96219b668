"""`blockforge profile`: latency, throughput and memory of one model, with their spread, and where the time goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import Outputs, loss_of
from blockforge.errors import BlockforgeError, did_you_mean
from blockforge.measure.memory import allocated_peak
from blockforge.units import count_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FEWEST, _MOST = 7, 1000
_WARM_UP = 3


class ProfileError(BlockforgeError):
    """A model that cannot be profiled as asked."""


@dataclass(frozen=True)
class Setting:
    """What to run: images at once, type of weights and images, inference or a training step."""

    batch: int
    dtype: str
    train: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.dtype}{', compiled' if self.compiled else ''}{', training' * self.train}"


@dataclass(frozen=True)
class Latency:
    """Times of one setting.

    Attributes:
        p10_ms, p50_ms, p90_ms, p99_ms: percentiles of one call's milliseconds.
        images_per_second: by the median.
        peak_bytes: most memory held at once beyond the model and its input.
        runs: calls that were timed.
        spread: (p90 - p10) / p50, how far to trust the rest.
        warm_up_s: seconds of the calls before the timed ones, compilation included.
    """

    setting: Setting
    p10_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float
    peak_bytes: int
    runs: int
    spread: float
    warm_up_s: float

    def as_dict(self) -> dict[str, Any]:
        flat = asdict(self)
        return {**flat.pop("setting"), **flat}


def settings(batches: str, dtypes: str, train: bool = False, compiled: bool = False) -> list[Setting]:
    """Every combination of what the command line asks for; compiled ones come beside eager ones.

    Raises: ProfileError if it is no list of batch sizes, or names an unknown type.
    """
    sizes = [count_of(b) or 0 for b in batches.split(",")]
    if not all(sizes):
        raise ProfileError(f"'{batches}' is not a list of batch sizes\n  hint: --batch 1,8")
    kinds = [d.strip() for d in dtypes.split(",")]
    for kind in kinds:
        if kind not in DTYPES:
            raise ProfileError(f"no type is named '{kind}'\n  hint: {did_you_mean(kind, DTYPES, 'types')}")
    ways = (False, True) if compiled else (False,)
    return [Setting(b, kind, train, way) for kind in kinds for b in sizes for way in ways]


def pick_device(name: str) -> str:
    """`cpu`, `cuda` or `cuda:N`, if it is there. Raises: ProfileError."""
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ProfileError(f"no device is named '{name}'\n  hint: {did_you_mean(name, ('cpu', 'cuda'), 'devices')}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ProfileError(
            "this torch finds no CUDA device\n  hint: --device cpu; blockforge doctor says what there is"
        )
    return name


def measure(
    model: Backbone,
    setting: Setting,
    device: str = "cpu",
    seconds: float = 3.0,
    clock: Callable[[], float] | None = None,
) -> Latency:
    """Time a model in one setting until `seconds` are over, at least seven times.

    The model is moved to the device and cast to the type. `clock` is for tests.
    Raises: ProfileError if it cannot be compiled or does not fit into memory.
    """
    now = clock or time.perf_counter
    step = make_step(model, setting, device)
    started = now()
    try:
        for _ in range(_WARM_UP):
            step()
        synchronize(device)
        warm_up = now() - started
        times = _timed(step, device, seconds, now)
        peak = allocated_peak(step, device)
    except (torch.OutOfMemoryError, MemoryError):
        raise ProfileError(f"{setting} does not fit into the memory of {device}\n  hint: a smaller --batch") from None
    return _summed_up(setting, times, peak, warm_up)


def make_step(model: Backbone, setting: Setting, device: str) -> Callable[[], Any]:
    """One call in a setting, ready to be repeated."""
    size = model.arch.plan.input
    dtype = DTYPES[setting.dtype]
    x = torch.randn(setting.batch, size.channels, *size.size, generator=torch.Generator().manual_seed(0))
    x = x.to(device=device, dtype=dtype)
    model.to(device=device, dtype=dtype)
    run: Callable[[Tensor], Outputs] = torch.compile(model) if setting.compiled else model
    return training_step(model, run, x) if setting.train else inference_step(model, run, x)


def inference_step(model: nn.Module, run: Callable[[Tensor], Outputs], x: Tensor) -> Callable[[], None]:
    """A forward pass of `model`, through `run`, which may be its compiled form."""
    model.eval()

    def step() -> None:
        with torch.inference_mode():
            run(x)

    return step


def training_step(model: nn.Module, run: Callable[[Tensor], Outputs], x: Tensor) -> Callable[[], None]:
    """Forward, backward and AdamW of `model`, through `run`."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(run(x)).backward()
        optimizer.step()

    return step


def _timed(step: Callable[[], Any], device: str, seconds: float, now: Callable[[], float]) -> list[float]:
    """Seconds of each call."""
    times: list[float] = []
    end = now() + seconds
    while len(times) < _FEWEST or (now() < end and len(times) < _MOST):
        start = now()
        step()
        synchronize(device)
        times.append(now() - start)
    return times


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _summed_up(setting: Setting, times: Iterable[float], peak: int, warm_up: float) -> Latency:
    ms = sorted(t * 1e3 for t in times)
    p10, p50, p90, p99 = (_percentile(ms, share) for share in (0.1, 0.5, 0.9, 0.99))
    return Latency(setting, p10, p50, p90, p99, setting.batch * 1e3 / p50, peak, len(ms), (p90 - p10) / p50, warm_up)


def _percentile(ordered: list[float], share: float) -> float:
    """With linear interpolation between neighbours."""
    if share == 0.5:
        return statistics.median(ordered)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
