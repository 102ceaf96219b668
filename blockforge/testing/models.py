"""What every whole model must keep: its graph's costs, shapes and memory are the module's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.api import build
from blockforge.blocks.base import Shape
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.deploy.model import deploy
from blockforge.compiler.graph.sites import HeadSite
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import is_leaf_on_nchw
from blockforge.compiler.lowering.outputs import Outputs, by_name, loss_of
from blockforge.errors import OpError
from blockforge.kernels import backend
from blockforge.spec import SpecLike
from blockforge.testing.figures import TOLERANCE
from blockforge.testing.measure import alive_at_peak, count_macs, peak_bytes_per_image, runnable_backends


def check_spec(source: SpecLike | Architecture, overrides: Mapping[str, Any] | None = None) -> Backbone:
    """Build a spec and run every check of this file on it. Returns the model.

    Raises: SpecError if the spec is wrong, AssertionError that names the law that it breaks.
    """
    arch = source if isinstance(source, Architecture) else compile_spec(source, overrides)
    model = build(arch, seed=0)
    check_costs(model)
    check_shapes(model)
    check_memory(model)
    check_training_step(model)
    check_sizes(model)
    return model


def check_costs(model: Backbone) -> None:
    """Parameters and multiply-adds of the graph are the module's, whole and node by node."""
    arch, nodes = model.arch, model.arch.nodes
    for name, module in _modules(model).items():
        counted = sum(p.numel() for p in module.parameters())
        assert nodes[name].params == counted, f"{name}: predicted {nodes[name].params}, it has {counted}"
    counted = sum(p.numel() for p in model.parameters())
    assert arch.params == counted, f"predicted {arch.params} parameters, the model has {counted}"
    image = _image(model)
    macs = count_macs(lambda: model.eval()(image)) + arch.scan_macs
    assert arch.macs == macs, f"predicted {arch.macs} multiply-adds, torch counts {macs} (scans included)"


def check_shapes(model: Backbone, batch: int = 2) -> None:
    """Every node reads and gives the shapes that the graph says; inside windows, a map a window."""
    nodes = model.arch.nodes
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def watch(name: str, module: nn.Module) -> Any:
        nchw = is_leaf_on_nchw(nodes[name])

        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            read, written = (t.permute(0, 2, 3, 1) if nchw else t for t in (args[0], output))
            seen[name] = tuple(read.shape), tuple(written.shape)

        return module.register_forward_hook(hook)

    hooks = [watch(name, module) for name, module in _modules(model).items()]
    try:
        with torch.no_grad():
            model.eval()(_image(model, batch))
    finally:
        for hook in hooks:
            hook.remove()
    for name, (read, written) in seen.items():
        node = nodes[name]
        main = nodes[node.inputs[0]].shapes
        wanted = node.shapes.in_shape if node.shapes.rounding else main.out_shape
        assert read == (batch * main.windows, *wanted.row), f"{name} reads {read}, the graph says {wanted}"
        out = _head_gives(node.out_shape) if isinstance(node.site, HeadSite) else node.out_shape.row
        assert written == (batch * node.shapes.windows, *out), f"{name} gives {written}, the graph says {out}"
    missing = {n for n, node in model.arch.computed.items() if node.site.has_module} - set(seen)
    assert not missing, f"these nodes never ran: {sorted(missing)}"


def _head_gives(shape: Shape) -> tuple[int, ...]:
    """Classes, or a map as dense predictions have it."""
    return (shape.dim,) if shape.positions == 1 else (shape.dim, *shape.row[:2])


def check_sizes(model: Backbone, *sizes: tuple[int, int]) -> None:
    """At another size it gives what its weights give in a network compiled for that size, or it refuses in words. With
    parameters that no network of the other size has, it gives maps of that network's shapes.

    Args:
        sizes: heights and widths of images; by default an odd one, larger than the spec's and flatter.
    """
    height, width = model.arch.plan.input.size
    maps = [i for i, stage in enumerate(model.arch.stages) if stage.end.last.name in model.arch.computed]
    for size in sizes or ((height - height // 4 + 1, 2 * width - 3),):
        x = torch.randn(2, model.in_chans, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            try:
                last, feature_maps = model.eval().forward_intermediates(x, maps)
            except OpError:
                continue
            arch = compile_spec(model.arch.spec, {"input.size": list(size)})
            shapes = [(2, s.dim, s.height, s.width) for s in map(arch.stage_maps().__getitem__, maps)]
            actual = [tuple(m.shape) for m in feature_maps]
            assert actual == shapes, f"at {size} it gives {actual}"
            other, state = build(arch).eval(), model.state_dict()
            if {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in state.items()}:
                other.load_state_dict(state)
                torch.testing.assert_close(last, other.forward_features(x), rtol=1e-3, atol=1e-4)


def check_memory(model: Backbone) -> None:
    """The peak of live activations is what a forward pass in inference takes, on every backend that costs are of."""
    for name in runnable_backends():
        _check_memory(model, name)


def _check_memory(model: Backbone, name: str) -> None:
    def inputs(batch: int) -> tuple[Tensor]:
        return (_image(model, batch),)

    predicted = model.arch.on(name).activation_bytes
    # A scan chooses its way by the batch, and windows are a batch: there the prediction is an upper bound.
    bound = any(node.costs.scan and node.shapes.windows > 1 for node in model.arch.nodes.values())
    with backend(name):
        measured = peak_bytes_per_image(model.eval(), inputs)
        close = measured <= (1 + TOLERANCE) * predicted and (bound or predicted <= (1 + TOLERANCE) * measured)
        there = "" if close else alive_at_peak(model, inputs)
    at = f"{name}, at {model.arch.on(name).peak_node}"
    assert close, f"predicted a peak of {predicted} bytes (on {at}), {measured} were alive\n  {there}"


def check_deployed(model: Backbone) -> Backbone:
    """Deployed, a model in float32 gives the same, costs no more, and is what its graph says. Move it off its initial
    values before: these hide what norms do. Returns the deployed model."""
    deployed_model, image = deploy(model.eval()), _image(model, batch=2)
    trained, deployed = model.arch, deployed_model.arch
    assert deployed.params <= trained.params, f"{trained.params} parameters become {deployed.params}"
    assert deployed.macs <= trained.macs, f"{trained.macs} multiply-adds become {deployed.macs}"
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        for a, b in zip(_listed(wide(image.double())), _listed(deploy(wide)(image.double())), strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=1e-9 * max(a.abs().max().item(), 1e-30))
    check_costs(deployed_model)
    check_shapes(deployed_model)
    check_memory(deployed_model)
    return deployed_model


def _listed(outputs: Outputs | list[Tensor]) -> list[Tensor]:
    return outputs if isinstance(outputs, list) else list(by_name(outputs).values())


def check_training_step(model: Backbone) -> None:
    """A training step has a finite loss, and its gradient reaches every parameter."""
    model.train().zero_grad()
    loss = loss_of(model(_image(model, batch=2)))
    assert loss.isfinite(), f"the loss is {loss.item()}"
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"


def _modules(model: Backbone) -> dict[str, nn.Module]:
    """The module of every node that runs and has one: a node's name is its module's path."""
    return {n: model.get_submodule(n) for n, node in model.arch.computed.items() if node.site.has_module}


def _image(model: Backbone, batch: int = 1) -> Tensor:
    """Noise of the spec's own size, on the model's device."""
    size = model.arch.plan.input
    device = next(model.parameters()).device
    if device.type == "meta":
        return torch.empty(batch, size.channels, *size.size, device=device)
    return torch.randn(batch, size.channels, *size.size, generator=torch.Generator().manual_seed(0)).to(device)
