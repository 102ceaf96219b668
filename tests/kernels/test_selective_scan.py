"""The vectorised selective scan against the loop that defines it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from blockforge.kernels.costs import costs_of
from blockforge.kernels.selective_scan import reference, selective_scan, torch_impl, workspace
from blockforge.testing.measure import peak_bytes, runnable_backends

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


@pytest.fixture(autouse=True, params=["chunks", "stepwise"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to cut a sequence, at every size."""
    monkeypatch.setattr(torch_impl, "_OVERHEAD", 10**9 if request.param == "chunks" else 0)


def make(
    length: int, states: int, groups: int = 1, dim: int = 6, batch: int = 2, scale: float = 1.0
) -> dict[str, Tensor]:
    torch.manual_seed(length * 100 + states)
    tensors = {
        "u": torch.randn(batch, dim, length),
        "delta": torch.randn(batch, dim, length) * scale,
        "A": -torch.rand(dim, states).exp(),
        "B": torch.randn(batch, groups, states, length),
        "C": torch.randn(batch, groups, states, length),
        "D": torch.randn(dim),
        "delta_bias": torch.randn(dim),
    }
    return {n: t.double().requires_grad_() for n, t in tensors.items()}


def run(scan, tensors: dict[str, Tensor], **options: bool) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The output and every gradient."""
    positional = [tensors[n] for n in NAMES[:5]]
    options = {"delta_softplus": True, **options}
    y = scan(*positional, tensors.get("D"), delta_bias=tensors.get("delta_bias"), **options)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), list(tensors.values()))]


def assert_same(tensors: dict[str, Tensor], **options: bool) -> None:
    for name, ours, theirs in zip(
        ("y", *tensors),
        run(torch_impl.selective_scan, tensors, **options),
        run(reference.selective_scan, tensors, **options),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("states", "groups"), [(1, 1), (1, 3), (8, 2), (16, 1)])
@pytest.mark.parametrize("length", [1, 2, 63, 197])
def test_equals_the_loop(length: int, states: int, groups: int, reverse: bool) -> None:
    assert_same(make(length, states, groups), reverse=reverse)


@pytest.mark.parametrize("left_out", [{"D"}, {"delta_bias"}, {"D", "delta_bias"}])
def test_optional_operands(left_out: set[str]) -> None:
    assert_same({n: t for n, t in make(29, 3).items() if n not in left_out})


def test_steps_without_softplus() -> None:
    tensors = make(31, 2)
    tensors["delta"] = tensors["delta"].detach().abs().requires_grad_()
    tensors["delta_bias"] = tensors["delta_bias"].detach().abs().requires_grad_()
    assert_same(tensors, delta_softplus=False)


@pytest.mark.parametrize("reverse", [False, True])
def test_extreme_steps(reverse: bool) -> None:
    tensors = make(197, 8, scale=300.0)
    assert_same(tensors, reverse=reverse)
    single = {n: t.detach().float().requires_grad_() for n, t in tensors.items()}
    for ours, theirs in zip(
        run(torch_impl.selective_scan, single, reverse=reverse),
        run(reference.selective_scan, tensors, reverse=reverse),
        strict=True,
    ):
        assert ours.isfinite().all()
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_steps_that_forget_everything_or_nothing() -> None:
    tensors = make(64, 2)
    for value in (-1e6, 1e6):
        with torch.no_grad():
            tensors["delta"].fill_(value)
        assert_same(tensors)


def test_any_memory_layout() -> None:
    tensors = make(50, 3, groups=2)
    strided = {n: t.detach().mT.contiguous().mT.requires_grad_() if t.ndim > 2 else t for n, t in tensors.items()}
    for a, b in zip(run(torch_impl.selective_scan, tensors), run(torch_impl.selective_scan, strided), strict=True):
        torch.testing.assert_close(a, b)


def test_no_memory_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(self: Tensor, *shape: int) -> Tensor:
        return self.new_full(shape, float("nan"))

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", lambda t: torch.full_like(t, float("nan")))
    for reverse in (False, True):
        assert_same(make(63, 5), reverse=reverse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    tensors = {n: t.detach() for n, t in make(63, 4).items()}
    halves = {n: t.to(dtype) for n, t in tensors.items()}
    y = torch_impl.selective_scan(*[halves[n] for n in NAMES[:6]], delta_bias=halves["delta_bias"], delta_softplus=True)
    exact = {n: t.double() for n, t in halves.items()}
    expected = reference.selective_scan(
        *[exact[n] for n in NAMES[:6]], delta_bias=exact["delta_bias"], delta_softplus=True
    )
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck(reverse: bool) -> None:
    tensors = make(7, 2, groups=2, dim=4, batch=1)

    def scan(*given: Tensor) -> Tensor:
        return torch_impl.selective_scan(*given[:6], delta_bias=given[6], delta_softplus=True, reverse=reverse)

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))


@pytest.mark.parametrize("reverse", [False, True])
def test_captured_graphs_give_the_same(reverse: bool) -> None:
    class Module(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            return selective_scan(*given[:6], delta_bias=given[6], delta_softplus=True, reverse=reverse)

    given = tuple(t.detach() for t in make(37, 3, groups=2).values())
    exported = torch.export.export(Module(), given).module()
    torch.testing.assert_close(exported(*given), Module()(*given))


@pytest.mark.parametrize("backend", runnable_backends())
@pytest.mark.parametrize(("length", "states"), [(35, 1), (196, 8), (100, 5), (401, 3)])
def test_workspace_is_what_a_scan_takes(length: int, states: int, backend: str) -> None:
    t = {n: v.detach().float() for n, v in make(length, states, dim=48, batch=1).items()}
    rest = [t[n] for n in NAMES[2:6]]
    for wide in (48, 96):
        u, delta = (torch.randn(1, length, w)[..., :48].mT for w in (wide, 48))
        used = peak_bytes(partial(selective_scan, u, delta, *rest, delta_softplus=True, backend=backend))
        with costs_of(backend):
            assert workspace(length, 48, states, dense=wide == 48) * 4 == pytest.approx(used, rel=0.03)


def test_shapes_are_checked() -> None:
    t = {n: v.detach() for n, v in make(5, 3).items()}
    with pytest.raises(ValueError, match=r"delta must be \(2, 6, 5\), not \(2, 6, 4\)"):
        selective_scan(t["u"], t["delta"][..., :4], t["A"], t["B"], t["C"])
    with pytest.raises(ValueError, match=r"B must be \(2, 1, 3, 5\), not \(2, 3, 5\)"):
        selective_scan(t["u"], t["delta"], t["A"], t["B"][:, 0], t["C"])
    with pytest.raises(ValueError, match="6 channels cannot be split into the 4 groups"):
        selective_scan(t["u"], t["delta"], t["A"], t["B"].repeat(1, 4, 1, 1), t["C"])
    with pytest.raises(ValueError, match=r"A must be \(channels, N\) with 6 channels"):
        selective_scan(t["u"], t["delta"], t["A"][:5], t["B"], t["C"])
    with pytest.raises(ValueError, match=r"u must be \(batch, channels, L\)"):
        selective_scan(t["u"][0], t["delta"], t["A"], t["B"], t["C"])
