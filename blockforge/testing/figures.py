"""Laws of figures: what a block says of its shape, costs and memory is what its module has and does."""

from __future__ import annotations

from typing import Any

import torch

from blockforge.blocks.base import Op, Place
from blockforge.kernels import backend
from blockforge.kernels.costs import costs_of
from blockforge.testing.examples import build_on_maps, example_inputs, example_module, expected_shape
from blockforge.testing.measure import alive_at_peak, count_macs, peak_bytes_per_image, runnable_backends, slope
from blockforge.testing.steps import saved_on_cpu, saved_on_meta

TOLERANCE = 0.1
"""Of memory: predicted against allocated."""


def check_costs(op: Op[*Place], *place: *Place) -> None:
    """Parameters and multiply-adds are what the module has and does."""
    module, cost = build_on_maps(op, *place), op.cost(*place)
    counted = sum(p.numel() for p in module.parameters())
    assert cost.params == counted, f"predicted {cost.params} parameters, the module has {counted}"
    x = example_inputs(op.kind, *place, batch=1)
    macs = count_macs(lambda: module.eval()(*x)) + cost.scan
    assert cost.macs == macs, f"predicted {cost.macs} multiply-adds, torch counts {macs} (scans included)"


def check_shape(op: Op[*Place], *place: *Place) -> None:
    """The module gives the shape that the block declares."""
    y, expected = example_module(op, *place)(*example_inputs(op.kind, *place, batch=3)), expected_shape(op, place, 3)
    assert tuple(y.shape) == expected, f"declared {expected}, the module gives {tuple(y.shape)}"
    assert y.dtype == torch.float32, f"float32 gives {y.dtype}"


def check_workspace(op: Op[*Place], *place: *Place) -> None:
    """The declared workspace is the memory that a forward pass takes, on every backend that costs are of."""
    module = example_module(op, *place)

    def inputs(batch: int) -> tuple[Any, ...]:
        return example_inputs(op.kind, *place, batch=batch)

    for name in runnable_backends():
        with costs_of(name), backend(name):
            predicted = op.workspace(*place) * 4
            measured = peak_bytes_per_image(module, inputs)
            close = abs(predicted - measured) <= TOLERANCE * measured
            there = "" if close else alive_at_peak(module, inputs)
        assert close, f"predicted {predicted} bytes an image at most on {name}, {measured} were alive\n  {there}"


def check_training_memory(op: Op[*Place], *place: *Place) -> None:
    """What the backward pass needs on the CPU is what it needs on the meta device, where training memory is found; on
    every backend that costs are of."""
    for name in runnable_backends():
        predicted = slope(lambda batch, name=name: saved_on_meta(op, place, batch, name))  # type: ignore[misc]
        measured = slope(lambda batch, name=name: saved_on_cpu(op, place, batch, name))  # type: ignore[misc]
        close = abs(predicted - measured) <= TOLERANCE * measured
        assert close, f"on the meta device backward needs {predicted} bytes an image on {name}, on the CPU {measured}"
