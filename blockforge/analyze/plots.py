"""The results as figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from blockforge.analyze.activations import NodeStatistics
from blockforge.analyze.attention import Reach
from blockforge.analyze.cam import ClassMap
from blockforge.analyze.cka import Similarity
from blockforge.analyze.erf import SHARES, ReceptiveField
from blockforge.analyze.record import short
from blockforge.analyze.token_weights import TokenWeights
from blockforge.figures import new_figure

_COLOURS = ("#4c78a8", "#e4572e", "#4f9d69", "#9467bd", "#b8860b", "#17807e", "#c2528b", "#555555")
_SQUARES = ("#ffffff", "#9be8ff", "#7cf29a", "#ff8f8f")
_MOST_LABELS = 24
_FAINTEST = 1e-4


def draw_similarity(similarities: Mapping[str, Similarity]) -> Figure:
    """Heat maps beside each other on one scale, up to 1; lines part the stages."""
    lowest = min(float(np.nanmin(np.asarray(s.values), initial=1.0)) for s in similarities.values())
    low = min(max(math.floor(10 * lowest) / 10, 0.0), 0.9)
    across = min(len(similarities), 3 if len(similarities) in (3, 5, 6) else 4)
    down = math.ceil(len(similarities) / across)
    figure = new_figure(3.3 * across + 1.1, 3.5 * down)
    grid = figure.subplots(down, across, squeeze=False)
    shown = None
    for axes, (label, similarity) in zip(grid.flat, similarities.items(), strict=False):
        values = np.asarray(similarity.values)
        shown = axes.imshow(values, vmin=low, vmax=1, cmap="magma", origin="lower", interpolation="nearest")
        axes.set_title(_wrapped(label), fontsize=9.5)
        _layer_ticks(axes.xaxis, similarity.columns)
        _layer_ticks(axes.yaxis, similarity.rows)
        axes.tick_params(axis="x", labelrotation=90)
        for names, line in ((similarity.columns, axes.axvline), (similarity.rows, axes.axhline)):
            for at in _stage_starts(names):
                line(at - 0.5, color="white", linewidth=0.6, alpha=0.8)
    for axes in grid.flat[len(similarities) :]:
        axes.set_visible(False)
    assert shown is not None
    bar = figure.colorbar(shown, ax=grid, shrink=0.8, aspect=28, pad=0.02)
    bar.set_label("linear CKA")
    return figure


def _wrapped(label: str) -> str:
    return textwrap.fill(label, 36)


def _layer_ticks(axis: Any, names: Sequence[str]) -> None:
    step = math.ceil(len(names) / _MOST_LABELS)
    axis.set_ticks(
        range(0, len(names), step), [short(n).replace("downsample", "down") for n in names[::step]], fontsize=6.5
    )


def _stage_starts(names: Sequence[str]) -> list[int]:
    stages = [name.split(".")[1] if "." in name else "" for name in names]
    return [i for i in range(1, len(names)) if stages[i] != stages[i - 1]]


def draw_receptive_fields(fields: Mapping[str, ReceptiveField]) -> Figure:
    """Fields beside each other on one logarithmic scale, with the squares that hold parts of them."""
    across = min(len(fields), 4)
    down = math.ceil(len(fields) / across)
    figure = new_figure(3.2 * across + 1.0, 3.75 * down + 0.35)
    grid = figure.subplots(down, across, squeeze=False)
    shown = None
    for axes, (label, field) in zip(grid.flat, fields.items(), strict=False):
        values = np.asarray(field.field).clip(_FAINTEST, 1)
        shown = axes.imshow(values, norm=LogNorm(_FAINTEST, 1), cmap="inferno", interpolation="nearest")
        (y, x), (height, width) = field.centre, field.field.shape
        for share, side, colour in zip(SHARES, field.sides, _SQUARES, strict=True):
            corner = x - side / 2, y - side / 2
            square = Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=1.0, label=f"{share:.0%}")
            axes.add_patch(square)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        listed = "  ".join(f"{s:.0%}: {a:.1%}" for s, a in zip(SHARES, field.areas, strict=True))
        axes.set_title(_wrapped(label), fontsize=9.5)
        axes.set_xlabel(f"share of the field: of the image\n{listed}", fontsize=7)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in grid.flat[len(fields) :]:
        axes.set_visible(False)
    grid[0, 0].legend(fontsize=6.5, loc="lower left", labelcolor="white", facecolor="black", framealpha=0.6)
    assert shown is not None
    bar = figure.colorbar(shown, ax=grid, shrink=0.75, aspect=28, pad=0.02, extend="min")
    bar.set_label("gradient, relative to the largest")
    return figure


def draw_reaches(networks: Mapping[str, Sequence[Reach]]) -> Figure:
    """Relative receptive field over depth: a line a network, bars for the spread of the heads."""
    figure = new_figure(7.2, 4.0)
    axes = figure.add_subplot()
    for i, (label, reaches) in enumerate(networks.items()):
        layers = [r.layer for r in reaches]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.errorbar(
            layers, [r.relative for r in reaches], yerr=[r.spread for r in reaches],
            color=colour, marker="o", markersize=4, linewidth=1.3, capsize=2, label=label,
        )  # fmt: skip
        axes.plot(layers, [r.uniform for r in reaches], color=colour, linestyle=":", linewidth=1.0)
    axes.plot([], [], color="#888888", linestyle=":", label="the whole map, evenly")
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])  # the highest point is no part of the frame
    axes.set_xlabel("layer, through all stages")
    axes.set_ylabel("relative receptive field")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    axes.legend(fontsize=8.5)
    return figure


def draw_token_weights(layers: Sequence[TokenWeights], pictures_BCHW: Tensor | None, most_images: int = 3) -> Figure:
    """A row an image (several rows where there are many layers), a column a layer, each on its own scale."""
    images = min(most_images, len(layers[0].weights))
    pictures = list(pictures_BCHW[:images]) if pictures_BCHW is not None else []
    cells = len(layers) + bool(pictures)
    across = min(cells, 8)
    down = math.ceil(cells / across)
    figure = new_figure(1.35 * across, 1.6 * down * images)
    grid = figure.subplots(down * images, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i in range(images):
        places = iter(grid[i * down : (i + 1) * down].flat)
        if pictures:
            axes = next(places)
            axes.imshow(_picture(pictures[i]), cmap="gray")
            axes.set_title("image", fontsize=7)
        for layer in layers:
            axes, values = next(places), np.asarray(layer.weights[i])
            axes.imshow(values, cmap="viridis", interpolation="nearest")
            axes.set_title(f"{short(layer.node)}\n{values.min():.2g} to {values.max():.2g}", fontsize=7)
    return figure


def draw_class_map(class_map: ClassMap, picture_CHW: Tensor) -> Figure:
    """The image, and the image below the map."""
    figure = new_figure(7.4, 3.6)
    left, right = figure.subplots(1, 2)
    image = _picture(picture_CHW)
    height, width = image.shape[:2]
    cam = F.interpolate(class_map.map[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    probability = dict(class_map.top).get(class_map.target)
    chance = f", probability {probability:.2g}" if probability is not None else ""
    left.imshow(image, cmap="gray")
    left.set_title("image", fontsize=9.5)
    right.imshow(image.mean(-1) if image.ndim == 3 else image, cmap="gray")
    shown = right.imshow(np.asarray(cam), cmap="jet", alpha=0.5, vmin=0, vmax=1)
    right.set_title(f"class {class_map.target}{chance}\nat {class_map.layer}", fontsize=9.5)
    for axes in (left, right):
        axes.set_axis_off()
    figure.colorbar(shown, ax=right, fraction=0.046, pad=0.03)
    return figure


def draw_activations(networks: Mapping[str, Sequence[NodeStatistics]]) -> Figure:
    """Scale, zeros and dead channels over the nodes, in execution order: two panels a network."""
    longest = max(len(nodes) for nodes in networks.values())
    figure = new_figure(min(18.0, max(7.2, 0.17 * longest)), 5.2 * len(networks))
    panels = figure.subplots(2 * len(networks), 1, height_ratios=(3, 2) * len(networks), squeeze=False)[:, 0]
    for top, bottom, (label, nodes) in zip(panels[::2], panels[1::2], networks.items(), strict=True):
        at = range(len(nodes))
        flagged = [i for i in at if nodes[i].flags]
        largest = [_positive(n.max_abs) for n in nodes]
        top.plot(at, largest, color=_COLOURS[0], linewidth=1.1, linestyle="--", label="largest")
        top.plot(at, [_positive(n.std) for n in nodes], color=_COLOURS[0], marker=".", label="standard deviation")
        top.plot(flagged, [largest[i] for i in flagged], "x", color=_COLOURS[1], markersize=6, label="flagged")
        bottom.plot(at, [n.zeros for n in nodes], color=_COLOURS[2], marker=".", label="zeros")
        dead = [n.dead / n.channels for n in nodes]
        bottom.plot(at, dead, color=_COLOURS[1], linestyle=":", marker=".", label="dead channels")
        top.set_yscale("log")
        top.set_title(label, loc="right", fontsize=10)
        top.set_ylabel("value")
        top.set_xticks(at, [])
        bottom.set_ylim(-0.04, 1.04)
        bottom.yaxis.set_major_formatter(PercentFormatter(1.0))
        bottom.set_ylabel("share")
        step = math.ceil(len(nodes) / 100)
        bottom.set_xticks(at[::step], [short(n.node) for n in nodes[::step]], rotation=90, fontsize=6)
        for axes in (top, bottom):
            _plain(axes)
            axes.set_xlim(-0.8, longest - 0.2)
            axes.legend(fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def _positive(value: float) -> float:
    return value if value > 0 else math.nan  # a logarithmic axis has no zero


def _picture(image_CHW: Tensor) -> np.ndarray[Any, Any]:
    """HWC, or HW of other numbers of channels than three."""
    image = image_CHW.cpu()
    return np.asarray(image.permute(1, 2, 0) if len(image) == 3 else image.mean(0))


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
