"""The scans in exported graphs: as exact as the definition, and few operators at every length."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from blockforge import kernels
from blockforge.kernels.cross_scan import cross_scan
from blockforge.kernels.cross_scan.captured import cross_scan as captured_cross_scan
from blockforge.kernels.cross_scan.reference import cross_scan as cross_scan_reference
from blockforge.kernels.selective_scan import selective_scan
from blockforge.kernels.selective_scan.captured import by_chunks, by_doubling
from blockforge.kernels.selective_scan.reference import selective_scan as selective_scan_reference


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest collects torch's log of every symbolic shape, which takes longer than to export."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.mark.parametrize(("batch", "channels", "length", "states"), [
    (2, 6, 300, 1), (2, 8, 70, 8), (1, 4, 33, 16), (1, 4, 7, 3), (1, 2, 1, 1),
])  # fmt: skip
@pytest.mark.parametrize("form", [by_chunks, by_doubling])
def test_states_are_those_of_the_recurrence(form: Any, batch: int, channels: int, length: int, states: int) -> None:
    generator = torch.Generator().manual_seed(0)
    log = -20 * torch.rand(batch, length, states, channels, generator=generator)
    added = torch.randn(batch, length, states, channels, generator=generator)
    h, wanted = added.new_zeros(batch, states, channels).double(), []
    for decay, value in zip(log.double().exp().unbind(1), added.double().unbind(1), strict=True):
        h = decay * h + value
        wanted.append(h)
    torch.testing.assert_close(form(log, added).double(), torch.stack(wanted, 1), rtol=1e-5, atol=1e-5)


class Scan(torch.nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.options = options

    def forward(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        return selective_scan(u, delta, A, B, C, D, delta_softplus=True, **self.options)


def operands(length: int, states: int = 1, groups: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(length)
    u, delta = torch.randn(2, 2, 4, length, generator=generator).unbind()
    B, C = torch.randn(2, 2, groups, states, length, generator=generator).unbind()
    return u, 3 * delta, -4 * torch.rand(4, states, generator=generator), B, C, torch.randn(4, generator=generator)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_an_exported_scan_serves_every_length(reverse: bool, backend: str) -> None:
    length = torch.export.Dim.DYNAMIC
    axes = {2: length}, {2: length}, None, {3: length}, {3: length}, None
    with kernels.backend(backend):
        program = torch.export.export(Scan(reverse=reverse), operands(300, 8, 2), dynamic_shapes=axes).module()
    for given in (operands(300, 8, 2), operands(9, 8, 2), operands(1000, 8, 2)):
        wanted = selective_scan_reference(*(t.double() for t in given), delta_softplus=True, reverse=reverse)
        torch.testing.assert_close(program(*given).double(), wanted, rtol=1e-5, atol=1e-5)


def test_long_scans_take_few_operators() -> None:
    def operators(length: int) -> int:
        program = torch.export.export(Scan(), operands(length))
        return sum(n.op == "call_function" for n in program.graph.nodes)

    assert operators(3136) < 120
    assert operators(3136) == operators(2500)


class CrossScan(torch.nn.Module):
    def forward(self, *given: Any) -> Tensor:
        *operands, bias = given
        return cross_scan(*operands, dt_bias=bias, directions=("rows", "columns", "rows_back", "columns_back"))


def of_a_map(directions: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = (2, 7, 9, 6), (2, 7, 9, directions, 3), *[(2, 7, 9, directions, 2)] * 2
    parameters = (directions, 6, 3), (directions, 6, 2), (directions, 6), (directions, 6)
    x, dt, B, C, weight, A, D, bias = (torch.randn(s, generator=generator) for s in (*sizes, *parameters))
    return [x, dt, B, C, weight, -A.abs(), D], bias


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("directions", [("rows",), ("rows", "columns", "rows_back", "columns_back")])
def test_the_captured_scan_of_a_map_is_the_scan(directions: Any, window: int | None) -> None:
    given, bias = of_a_map(len(directions))
    y = captured_cross_scan(*given, dt_bias=bias, directions=directions, window=window)
    exact = [t.double() for t in given]
    wanted = cross_scan_reference(*exact, dt_bias=bias.double(), directions=directions, window=window)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)


def test_an_exported_scan_of_a_map_is_one_scan() -> None:
    given, bias = of_a_map(4)
    program = torch.export.export(CrossScan(), (*given, bias))
    assert sum(n.target is torch.ops.aten.softplus.default for n in program.graph.nodes) == 1
    torch.testing.assert_close(program.module()(*given, bias), CrossScan()(*given, bias), rtol=1e-5, atol=1e-5)
