"""`blockforge bench models`: our model and another implementation, in turn, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from blockforge.console.text_table import Label, Number, TextTable
from blockforge.errors import WeightsError
from blockforge.measure.memory import allocated_peak
from blockforge.measure.profile import inference_step, training_step


@dataclass(frozen=True)
class Comparison:
    """Times of ours and of the other side at one batch size.

    Attributes:
        ours_ms, other_ms: median milliseconds of one call.
        ratio: median of the ratios ours / other, round by round; `low` and `high` hold the middle 80% of them.
        ours_bytes, other_bytes: the most that one call holds at once, weights and input aside.
        difference: relative difference of the outputs, None where the weights are not equal.
    """

    name: str
    batch: int
    ours_ms: float
    other_ms: float
    ratio: float
    low: float
    high: float
    ours_bytes: int
    other_bytes: int
    difference: float | None


def compare(
    name: str,
    ours: nn.Module,
    other: nn.Module,
    shape: tuple[int, int, int, int],
    *,
    repeats: int = 15,
    train: bool = False,
) -> Comparison:
    """Time two models on the same noise, one call each in turn, and then see what memory a call takes.

    Args:
        shape: of the input, (B, C, H, W).
        repeats: rounds that count, after three that do not.
        train: a training step (forward, backward, AdamW) in place of inference.
    """
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    difference = None if train else _difference(ours.eval(), other.eval(), x)
    steps = [training_step(m, m, x) if train else inference_step(m, m, x) for m in (ours, other)]
    times: list[tuple[float, float]] = []
    for round_ in range(-3, repeats):
        pair = (_timed(steps[0]), _timed(steps[1]))
        if round_ >= 0:
            times.append(pair)
    ratios = sorted(a / b for a, b in times)
    tenth = max(0, len(ratios) // 10)
    ours_bytes, other_bytes = (allocated_peak(step) for step in steps)
    return Comparison(
        name,
        shape[0],
        statistics.median(a for a, _ in times) * 1e3,
        statistics.median(b for _, b in times) * 1e3,
        statistics.median(ratios),
        ratios[tenth],
        ratios[-1 - tenth],
        ours_bytes,
        other_bytes,
        difference,
    )


def compare_all(
    specs: list[str], against: str, batches: list[int], *, size: int, runs: int, threads: int, train: bool
) -> list[Comparison]:
    """Compare each spec at each batch size with the model that `against` (FILE.py[:NAME] or timm:NAME) makes."""
    import blockforge as bf
    from blockforge.measure.peers import load_peer

    if threads:
        torch.set_num_threads(threads)
    comparisons = []
    for spec in specs:
        ours = bf.build(spec, img_size=size, seed=0)
        other = load_peer(f"{against}:{ours.spec.name}" if against.endswith(".py") else against)
        equal = share_weights(ours, other)
        for batch in batches:
            shape = (batch, ours.arch.plan.input.channels, size, size)
            result = compare(ours.spec.name, ours, other, shape, repeats=runs, train=train)
            comparisons.append(result if equal else replace(result, difference=None))
    return comparisons


def comparisons_table(comparisons: list[Comparison], train: bool) -> TextTable:
    """The comparisons, to be printed by rich."""
    what = "training step" if train else "inference"
    title = f"ours against theirs: {what}, float32, CPU, {torch.get_num_threads()} threads"
    columns = ("batch", "ours ms", "theirs ms", "ratio", "middle 80%", "peak MB", "theirs", "differ by")
    leaving = {"differ by": 1, "ours ms": 2, "theirs ms": 3}
    table = TextTable(Label("model"), *(Number(c, leaves=leaving.get(c)) for c in columns), title=title)
    for c in comparisons:
        spread, off = f"{c.low:.2f} to {c.high:.2f}", "" if c.difference is None else f"{c.difference:.1e}"
        times = (f"{c.ours_ms:.0f}", f"{c.other_ms:.0f}", f"{c.ratio:.2f}")
        peaks = (f"{size / 1e6:.1f}" for size in (c.ours_bytes, c.other_bytes))
        table.add_row(c.name, str(c.batch), *times, spread, *peaks, off)
    return table


def share_weights(ours: nn.Module, other: nn.Module) -> bool:
    """Copy the other model's weights into ours, if its layout is an official one that we know."""
    from blockforge.weights import load_official

    _randomise_statistics(other)
    try:
        load_official(ours, other.state_dict())  # type: ignore[arg-type]
    except WeightsError:
        return False
    return True


def _randomise_statistics(model: nn.Module) -> None:
    """Running statistics as after training: at 0 and 1 a wrong BatchNorm would go unnoticed."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


def _difference(ours: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.inference_mode():
        expected = other(x)
        return float((ours(x) - expected).norm() / expected.norm())


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
