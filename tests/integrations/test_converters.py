"""What other libraries put in the place of batch norms gives what the batch norms gave."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm
from torch import Tensor, nn

import blockforge as bf
import blockforge.specs
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.testing import randomise

ZOO = Path(blockforge.specs.__file__).parent
SPECS = Path(__file__).parents[1] / "specs"
SMALL = [*sorted((ZOO / "narrow").glob("*.yaml")), SPECS / "batch_norm.yaml", SPECS / "dmca.yaml"]
LARGE = [pytest.param(file, marks=pytest.mark.slow) for file in sorted(ZOO.glob("*.yaml"))]


class FrozenBatchNorm2d(nn.Module):
    """As detectors of transformers have it. (Theirs knows one eps alone, 1e-5.)"""

    def __init__(self, n: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((n,), value))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (b.reshape(1, -1, 1, 1) for b in self.buffers())
        scale = weight * (var + self.eps).rsqrt()
        return x * scale + (bias - mean * scale)


def transformers(model: nn.Module) -> nn.Module:
    """`replace_batch_norm` of DETR and RT-DETR."""
    for name, module in model.named_children():
        if isinstance(module, nn.BatchNorm2d):
            new: Any = FrozenBatchNorm2d(module.num_features, module.eps)
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(new, part).data.copy_(getattr(module, part))
            model._modules[name] = new
        if len(list(module.children())) > 0:
            transformers(module)
    return model


def torch_sync(model: nn.Module) -> nn.Module:
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def timm_frozen(model: nn.Module) -> nn.Module:
    load_timm()
    from timm.layers import freeze_batch_norm_2d

    return freeze_batch_norm_2d(model)


def timm_frozen_by_name(model: nn.Module) -> nn.Module:
    load_timm()
    from timm.utils import freeze

    freeze(model, include_bn_running_stats=True)
    return model


def timm_sync(model: nn.Module) -> nn.Module:
    load_timm()
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(model)


def there_and_back(model: nn.Module) -> nn.Module:
    mmengine = pytest.importorskip("mmengine.model")
    return mmengine.revert_sync_batchnorm(torch_sync(model))


CONVERTERS = [torch_sync, timm_frozen, timm_frozen_by_name, timm_sync, transformers, there_and_back]


def trained(file: Path, *, drawn: bool = True) -> tuple[Backbone, Tensor]:
    """A network whose norms have seen something, in evaluation mode, and an image.

    Args:
        drawn: every parameter is random, not the norms' alone. Deep networks of such parameters enlarge what float32
            rounds by orders of magnitude, or overflow.
    """
    model = bf.build(file, seed=0).eval()
    if drawn:
        randomise(model)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None  # noqa: PT018
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            if not drawn:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    size = model.arch.plan.input
    return model, torch.randn(1, size.channels, *size.size, generator=generator)  # type: ignore[return-value]


def holds(file: Path, convert: Callable[[nn.Module], nn.Module], *, drawn: bool = True) -> nn.Module:
    """The converted network, after its outputs were compared with those before."""
    model, x = trained(file, drawn=drawn)
    with torch.no_grad():
        before = [model(x), *model.forward_intermediates(x, intermediates_only=True)]
        converted: Any = convert(model).eval()
        after = [converted(x), *converted.forward_intermediates(x, intermediates_only=True)]
    assert not any(type(m) is nn.BatchNorm2d for m in converted.modules())
    for new, old in zip(after, before, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-5 * old.abs().max().item())
    return converted


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("file", SMALL, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_outputs_in_evaluation_are_those_before(file: Path, convert: Callable[[nn.Module], nn.Module]) -> None:
    if any(isinstance(m, nn.BatchNorm2d) for m in bf.build(file, device="meta").modules()):
        holds(file, convert)


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("file", LARGE, ids=lambda f: f.stem)
def test_every_network_of_the_zoo(file: Path, convert: Callable[[nn.Module], nn.Module]) -> None:
    if any(isinstance(m, nn.BatchNorm2d) for m in bf.build(file, device="meta").modules()):
        holds(file, convert, drawn=False)


@pytest.mark.parametrize("name", ["resnet", "smt", "sparx_mamba", "strip_mlp"])
def test_synchronised_norms_train_alone_as_batch_norms_do(name: str) -> None:
    model, x = trained(ZOO / "narrow" / f"{name}.yaml")
    other, x = torch_sync(copy.deepcopy(model)), x.expand(4, -1, -1, -1) + 0.1 * torch.randn(4, *x.shape[1:])
    for each in (model, other):
        torch.manual_seed(0)
        each.train()(x).square().sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    for key, parameter in other.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[key], rtol=1e-3, atol=1e-3)
    assert other.state_dict().keys() == model.state_dict().keys()
    for key, value in other.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-4, atol=1e-4)


def test_plain_layers_of_torch_in_the_place_of_ours() -> None:
    model, x = trained(SPECS / "conv_stem2.yaml")
    with torch.no_grad():
        before = model(x)
        for path, leaf in list(model.named_modules()):
            if isinstance(leaf, nn.Conv2d):
                sizes = (leaf.in_channels, leaf.out_channels, leaf.kernel_size, leaf.stride, leaf.padding)
                plain = nn.Conv2d(*sizes, groups=leaf.groups, bias=leaf.bias is not None)  # type: ignore[arg-type]
            elif isinstance(leaf, nn.Linear):
                plain = nn.Linear(leaf.in_features, leaf.out_features, bias=leaf.bias is not None)  # type: ignore[assignment]
            else:
                continue
            plain.load_state_dict(leaf.state_dict())
            model.set_submodule(path, plain)
        torch.testing.assert_close(model.eval()(x), before, rtol=1e-5, atol=1e-5)


def test_views_of_a_network_see_what_was_replaced() -> None:
    """`forward_features` and its like run other graphs over the same modules."""
    model, x = trained(SPECS / "dwconv_downsample.yaml")
    with torch.no_grad():
        before = model.forward_features(x)
        name = next(n for n, d in model.arch.graph.nodes.items() if d["op"] == "dwconv_downsample")
        leaf: Any = model.get_submodule(name)
        new = copy.deepcopy(leaf)
        new.weight.mul_(-1)
        model.set_submodule(name, new)
        after = model.forward_features(x)
    assert not torch.allclose(after, before)
