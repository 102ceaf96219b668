"""Derivatives beyond the first, and transforms of functions: right for every operator and backend, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from every_operator import EXAMPLES, backends, results
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import blockforge as bf
from blockforge import kernels

SPECS = Path(__file__).parents[1] / "specs"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning"),  # torch's own, in jvp
    pytest.mark.filterwarnings("ignore:There is a performance drop because:UserWarning"),
]
CASES = [(name, b) for name in EXAMPLES for b in backends(name, torch.empty(0))]


def _second(name: str, backend: str, tensors: list[Tensor]) -> list[Tensor]:
    """The gradient of a sum that holds every first derivative."""
    y = EXAMPLES[name].run(*tensors, backend=backend)
    first = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
    found = torch.autograd.grad(sum((g * g).sum() for g in first), tensors)
    return list(found)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_second_derivatives(name: str, backend: str) -> None:
    expected = _second(name, "reference", EXAMPLES[name].tensors(torch.float64))
    for found, exact in zip(_second(name, backend, EXAMPLES[name].tensors()), expected, strict=True):
        assert (found - exact).norm() <= 1e-3 * exact.norm()


@pytest.mark.parametrize("name", EXAMPLES)
def test_of_the_plain_form(name: str) -> None:
    """Twice differentiable in float64, by finite differences."""
    example = EXAMPLES[name]
    tensors = [
        t.detach()[..., :3].requires_grad_() if name == "nothing" else t for t in example.tensors(torch.float64, 1)
    ]
    if name == "linear":
        tensors = [t.detach()[..., :5].clone().requires_grad_() for t in tensors]
        tensors[1], tensors[2] = (t.detach()[:4].clone().requires_grad_() for t in tensors[1:])
    run = partial(example.run, backend="torch")
    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)


def test_one_tensor_given_twice() -> None:
    x = torch.randn(1, 2, 5, requires_grad=True)
    A, B = -torch.ones(2, 1), torch.randn(1, 1, 1, 5, requires_grad=True)

    def penalty(backend: str) -> tuple[Tensor, ...]:
        y = kernels.selective_scan.selective_scan(x, x, A, B, B, delta_softplus=True, backend=backend)  # type: ignore[attr-defined]
        first = torch.autograd.grad(y.sum(), (x, B), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, B))

    for backend in backends("selective_scan", x):
        for found, exact in zip(penalty(backend), penalty("reference"), strict=True):
            torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("backend", backends("selective_scan", torch.empty(0)))
def test_what_is_not_read_has_derivatives_of_zero(backend: str) -> None:
    """The decays of a scan of one step."""
    u, A, B = torch.randn(1, 2, 1), -torch.ones(2, 3), torch.randn(1, 1, 3, 1)
    tensors = [t.requires_grad_() for t in (u, A, B)]

    def first_and_second() -> list[Tensor]:
        y = kernels.selective_scan.selective_scan(u, u, A, B, B, delta_softplus=True, backend=backend)  # type: ignore[attr-defined]
        first = torch.autograd.grad(y.square().sum(), tensors, create_graph=True, materialize_grads=True)
        second = torch.autograd.grad(first[0].sum(), tensors, materialize_grads=True)
        return [*first, *second]

    found = first_and_second()
    assert not found[1].any()
    assert not found[4].any()
    assert found[3].any()


# --- torch.func


@pytest.mark.parametrize("name", ["attention", "dmca", "vit_stem"])
def test_products_of_hessians_and_vectors(name: str) -> None:
    """Of whole networks, with attention and with group norms on maps that lie channels-last."""
    model = bf.build(SPECS / f"{name}.yaml", {"drop_path": 0}, seed=0).eval().double()
    size = model.arch.plan.input
    image, along = (torch.randn(size.channels, *size.size, dtype=torch.float64) for _ in range(2))

    def gradient(image: Tensor) -> Tensor:
        return torch.func.grad(lambda t: model(t[None]).square().sum())(image)

    _, found = torch.func.jvp(gradient, (image,), (along,))
    expected = (gradient(image + 1e-5 * along) - gradient(image - 1e-5 * along)) / 2e-5
    assert (found - expected).norm() <= 1e-4 * expected.norm()


def _wish(how: str, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., Tensor], Any]:
    """An operator asked for the plain form in one of the ways there are, or not asked."""
    run = EXAMPLES[name].run
    if how == "argument":
        return partial(run, backend="torch"), None
    if how == "environment":
        monkeypatch.setenv("BLOCKFORGE_KERNELS", "torch")
    return run, how == "context"


@pytest.mark.parametrize("how", ["by itself", "argument", "context", "environment", "another by environment"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_transforms(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """vmap, grad, jvp, jacrev and hessian give what loops and the reference give."""
    run, in_context = _wish(how, name, monkeypatch)
    if how == "another by environment":
        monkeypatch.setenv("BLOCKFORGE_KERNELS", "numba")
    example = EXAMPLES[name]
    tensors = [t.detach() for t in example.tensors(torch.float32, 1)]
    many = [torch.stack([t, t * 0.9, t * 1.1]) for t in tensors]

    def loss(run: Callable[..., Tensor], *given: Tensor) -> Tensor:
        y = run(*given)
        return (y * torch.ones_like(y).cumsum(-1)).sum()

    exact = partial(loss, partial(example.run, backend="reference"))
    own = partial(loss, run)
    every = tuple(range(len(tensors)))
    with kernels.backend("torch" if in_context else "auto") if in_context else torch.enable_grad():
        each = torch.func.vmap(torch.func.grad(own, every))(*many)
        (direction,) = (tuple(t.flip(-1) for t in tensors),)
        _, along = torch.func.jvp(own, tuple(tensors), direction)
        _, back = torch.func.jvp(lambda *t: torch.func.grad(own)(*t), tuple(tensors), direction)
        of_one = torch.func.vmap(own, (None,) * (len(every) - 1) + (0,))(*tensors[:-1], many[-1])
        if name != "linear":
            jacobian = torch.func.jacrev(run)(*tensors)
    for i in range(3):
        leaves = [t[i].clone().requires_grad_() for t in many]
        for found, grad in zip(each, torch.autograd.grad(exact(*leaves), leaves), strict=True):
            assert (found[i] - grad).norm() <= 1e-3 * grad.norm()
        torch.testing.assert_close(of_one[i], exact(*tensors[:-1], many[-1][i]), rtol=1e-3, atol=1e-3)
    leaves = [t.clone().requires_grad_() for t in tensors]
    grads = torch.autograd.grad(exact(*leaves), leaves, create_graph=True)
    expected = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))
    torch.testing.assert_close(along, expected.detach(), rtol=1e-3, atol=1e-2)
    (of_along,) = torch.autograd.grad(expected, leaves[:1], allow_unused=True)
    if of_along is not None:
        assert (back - of_along).norm() <= 1e-3 * of_along.norm() + 1e-4
    if name != "linear":
        assert jacobian.shape == (*EXAMPLES[name].run(*tensors).shape, *tensors[0].shape)


@pytest.mark.parametrize("name", EXAMPLES)
def test_hessians(name: str) -> None:
    example = EXAMPLES[name]
    tensors = [t.detach() for t in example.tensors(torch.float64, 1)]
    last = tensors[-1]

    def loss(backend: str | None, t: Tensor) -> Tensor:
        return example.run(*tensors[:-1], t, backend=backend).square().sum()

    found = torch.func.hessian(partial(loss, None))(last)
    expected = torch.autograd.functional.hessian(partial(loss, "reference"), last)
    torch.testing.assert_close(found, expected)
    at_once = torch.autograd.functional.hessian(partial(loss, "torch"), last, vectorize=True)
    torch.testing.assert_close(at_once, expected)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_jacobians_by_vmap_over_the_backward_pass(name: str, backend: str) -> None:
    tensors = [t.detach() for t in EXAMPLES[name].tensors(torch.float32, 1)]
    last = tensors[-1][..., :3] if name == "linear" else tensors[-1]

    def run(t: Tensor) -> Tensor:
        whole = torch.cat([t, tensors[-1][..., 3:]], -1) if name == "linear" else t
        return EXAMPLES[name].run(*tensors[:-1], whole, backend=backend)

    found = torch.autograd.functional.jacobian(run, last, vectorize=True)
    expected = torch.autograd.functional.jacobian(run, last)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", EXAMPLES)
def test_forward_mode(name: str) -> None:
    tensors = [t.detach() for t in EXAMPLES[name].tensors(torch.float64, 1)]
    with torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(t, t.flip(-1)) for t in tensors]
        found = torch.autograd.forward_ad.unpack_dual(EXAMPLES[name].run(*dual)).tangent
    _, expected = torch.func.jvp(
        partial(EXAMPLES[name].run, backend="reference"), tuple(tensors), tuple(t.flip(-1) for t in tensors)
    )
    assert found is not None
    torch.testing.assert_close(found, expected)


# --- saved tensors


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_saved_tensors_are_read_once(name: str, backend: str) -> None:
    """So that a checkpoint may compute them for that reading; and what comes back may lie in memory another way."""
    expected = results(name, backend, EXAMPLES[name].tensors())
    read: list[int] = []

    def pack(x: Tensor) -> tuple[int, Tensor]:
        read.append(0)
        return len(read) - 1, x.detach().mT.contiguous().mT if x.ndim > 1 else x.detach().clone()

    def unpack(held: tuple[int, Tensor]) -> Tensor:
        read[held[0]] += 1
        return held[1]

    with saved_tensors_hooks(pack, unpack):
        found = results(name, backend, EXAMPLES[name].tensors())
    assert read
    assert max(read) == 1
    with save_on_cpu():
        offloaded = results(name, backend, EXAMPLES[name].tensors())
    for a, b, c in zip(found, offloaded, expected, strict=True):
        torch.testing.assert_close(a, c)
        torch.testing.assert_close(b, c)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_checkpoints(name: str, backend: str, reentrant: bool) -> None:
    expected = results(name, backend, EXAMPLES[name].tensors())
    tensors = EXAMPLES[name].tensors()
    run = partial(EXAMPLES[name].run, backend=backend)
    y = checkpoint(run, *tensors, use_reentrant=reentrant)
    y.backward(torch.ones_like(y).cumsum(-1))
    for found, exact in zip([y, *(t.grad for t in tensors)], expected, strict=True):
        torch.testing.assert_close(found, exact)
