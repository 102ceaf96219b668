"""No kernel trusts what is global in torch: its results are the same whatever the default dtype and device are, and a
buffer that does not fit is refused before anything is written."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from every_operator import EXAMPLES, backends, results, test_all_are_here

import blockforge as bf
from blockforge.kernels import KernelError
from blockforge.kernels.buffers import address, same_device

NARROW = sorted((Path(bf.__file__).parents[1] / "specs" / "narrow").glob("*.yaml"))
assert test_all_are_here


@contextlib.contextmanager
def defaults(dtype: torch.dtype, device: str = "cpu") -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", EXAMPLES)
def test_defaults_change_nothing(name: str, dtype: torch.dtype) -> None:
    for backend in backends(name, torch.empty(0, dtype=dtype)):
        expected = results(name, backend, EXAMPLES[name].tensors(dtype))
        for default in (torch.bfloat16, torch.float16, torch.float64):
            with defaults(default):
                found = results(name, backend, EXAMPLES[name].tensors(dtype))
            for a, b in zip(found, expected, strict=True):
                assert a.dtype == b.dtype
                assert torch.equal(a, b), f"{backend} under {default}"
        tensors = EXAMPLES[name].tensors(dtype)
        with defaults(torch.float32, "meta"):
            found = results(name, backend, tensors)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), f"{backend} under meta"


@pytest.mark.parametrize("name", EXAMPLES)
def test_types_agree(name: str) -> None:
    """Every backend and every type gives about what float64 does by the definition."""
    expected = results(name, "reference", EXAMPLES[name].tensors(torch.float64))
    for dtype, most in {torch.float32: 1e-4, torch.bfloat16: 0.08, torch.float16: 0.01}.items():
        for backend in backends(name, torch.empty(0, dtype=dtype)):
            for a, b in zip(results(name, backend, EXAMPLES[name].tensors(dtype)), expected, strict=True):
                assert (a.double() - b).norm() <= most * b.norm(), f"{backend} in {dtype}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_any_layout(name: str) -> None:
    """Expanded, transposed and cut tensors give what dense ones give; so do inference mode and an empty batch."""
    example = EXAMPLES[name]
    for backend in backends(name, torch.empty(0)):
        dense = example.tensors()
        expected = results(name, backend, dense)
        strided = [torch.stack([t, t], -1)[..., 0].detach().requires_grad_() for t in dense]
        reordered = [t.detach().permute(*reversed(range(t.ndim))).contiguous() for t in dense]
        turned = [t.permute(*reversed(range(t.ndim))).requires_grad_() for t in reordered]
        for tensors in (strided, turned):
            for a, b in zip(results(name, backend, tensors), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        one = example.tensors(batch=1)
        many = [t.expand(3, *t.shape[1:]) if i < example.mapped else t for i, t in enumerate(one)]
        torch.testing.assert_close(
            example.run(*many, backend=backend), example.run(*one, backend=backend).expand(3, *[-1] * (one[0].ndim - 1))
        )
        with torch.inference_mode():
            torch.testing.assert_close(example.run(*dense, backend=backend), expected[0])
        none = results(name, backend, example.tensors(batch=0))
        assert none[0].shape == (0, *expected[0].shape[1:])
        assert all(not g.any() for g in none[1:]), backend


@pytest.mark.parametrize("name", EXAMPLES)
def test_autocast(name: str) -> None:
    example = EXAMPLES[name]
    for backend in backends(name, torch.empty(0)):
        expected = results(name, backend, example.tensors())
        tensors = example.tensors()
        with torch.autocast("cpu", torch.bfloat16):
            y = example.run(*tensors, backend="torch" if backend == "onednn" else backend)
        found = [y, *torch.autograd.grad(y, tensors, torch.ones_like(y).cumsum(-1))]
        for a, b in zip(found, expected, strict=True):
            assert (a.float() - b).norm() <= 0.08 * b.norm(), backend


@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("spec", NARROW, ids=lambda p: p.stem)
def test_models(spec: Path, own: torch.dtype) -> None:
    """A model trains alike under every default, and one that is built under it computes the same."""
    x = torch.randn(2, 1, 32, 32, dtype=own)

    def step(model: torch.nn.Module) -> list[torch.Tensor]:
        y = model.eval()(x)
        return [y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))]

    model = bf.build(spec, seed=0).to(own)
    expected = step(model)
    for default in (torch.bfloat16, torch.float16, torch.float64):
        with defaults(default):
            found = step(model)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), str(default)
    with defaults(own):
        built = bf.build(spec, seed=0)
    wrong = [n for n, t in built.named_parameters() if t.dtype != own]
    assert not wrong, f"built under {own}, of another type: {wrong}"
    built.load_state_dict(model.state_dict())
    most = 1e-5 if own != torch.bfloat16 else 0.05
    assert (built.eval()(x) - expected[0]).norm() <= most * expected[0].norm()


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.zeros(2, 3, dtype=torch.bfloat16), "must be float32 on the CPU"),
        (torch.zeros(2, 3, device="meta"), "must be float32 on the CPU"),
        (torch.zeros(3, 2), r"must be \(2, 3\)"),
        (torch.zeros(3, 2).T, "must have its last 1 axes without gaps"),
        (torch.zeros(2, 3).to_sparse(), "must be plain numbers in memory"),
        (torch.zeros(2, 3, dtype=torch.complex64).conj().imag.contiguous().neg()[:1], r"must be \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.complex64).conj().imag, "must be plain numbers in memory"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(x: torch.Tensor, why: str) -> None:
    with pytest.raises(KernelError, match=why):
        address(x, (2, 3), inner=1)


def test_a_freed_buffer_is_refused() -> None:
    x = torch.zeros(2, 3)
    assert address(x, (2, 3), inner=2) == x.data_ptr()
    assert address(x.expand(4, 2, 3), (4, 2, 3), inner=2) == x.data_ptr()
    x.untyped_storage().resize_(8)
    with pytest.raises(KernelError, match="reaches over 6 elements, of which 2 are in memory"):
        address(x, (2, 3), inner=1)


def test_tensors_of_several_devices_are_refused() -> None:
    with pytest.raises(KernelError, match="on several devices: cpu, meta"):
        same_device([torch.zeros(1), torch.zeros(1, device="meta")])


# --- the source

FACTORIES = {
    "arange", "asarray", "as_tensor", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones", "rand",
    "randint", "randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
OF_CONSTRUCTION = {"__init__", "build", "computed", "reset", "reset_parameters", "init_non_persistent_buffers"}


def test_no_factory_takes_torchs_defaults() -> None:
    """Whatever runs when a kernel or a block runs says of which type and where its new tensors are."""
    package = Path(bf.__file__).parent
    kernels = {p: _parsed(p) for p in (package.parent / "kernels").rglob("*.py") if p.name != "bench.py"}
    blocks = {p: _parsed(p) for p in (package / "blocks").rglob("*.py")}
    run = _called_from_forward(_functions(blocks))
    found = [f"{p.name}:{n.lineno}" for p, tree in kernels.items() for n in ast.walk(tree) if _takes_defaults(n)]
    for path, tree in blocks.items():
        running = (f for f in _functions({path: tree}) if f.name in run)
        found += [f"{path.name}:{n.lineno}" for f in running for n in ast.walk(f) if _takes_defaults(n)]
    assert not found, f"state dtype and device, or make it by blockforge.kernels.buffers: {found}"


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(trees: dict[Path, ast.Module]) -> list[ast.FunctionDef]:
    return [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]


def _called_from_forward(functions: list[ast.FunctionDef]) -> set[str]:
    """Names of the functions that run when a module runs: what `forward` and `residual` call, by name."""
    calls: dict[str, set[str]] = {f.name: set() for f in functions}
    for f in functions:
        called = (n.func for n in ast.walk(f) if isinstance(n, ast.Call))
        calls[f.name] |= {c.attr if isinstance(c, ast.Attribute) else getattr(c, "id", "") for c in called}
    reached: set[str] = set()
    waiting = ["forward", "residual"]
    while waiting:
        name = waiting.pop()
        if name in calls and name not in reached | OF_CONSTRUCTION:
            reached.add(name)
            waiting += calls[name]
    return reached


def _takes_defaults(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FACTORIES):
        return False
    if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"):
        return False
    return not {"dtype", "device"} <= {k.arg for k in node.keywords}
