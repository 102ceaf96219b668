"""timm's models as peers, with weights that hide nothing. Needs timm, but neither its weights nor a
torchvision whose operators load."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, library, nn

_HOW = "not installed: pip install --no-deps -r tests/no-deps-requirements.txt"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_DECLARED: list[library.Library] = []  # a schema lives as long as its library object


def load_timm() -> Any:
    """timm, or a skip of the test that asks for it."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        pytest.skip(f"torchvision is {_HOW}")
    except RuntimeError:
        _declare_operators()
    return pytest.importorskip("timm", reason=f"timm is {_HOW}")


def _declare_operators() -> None:
    """torchvision's wheels are built for torch with CUDA. Beside a CPU build their operators do not load, and
    the import fails where it describes these two; timm calls neither."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    declared = library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        declared.define(operator + _SCHEMA)
    _DECLARED.append(declared)


def peer(name: str, **kwargs: Any) -> nn.Module:
    """timm's model in evaluation mode and double precision, every parameter and statistic drawn anew."""
    model: nn.Module = load_timm().create_model(name, num_classes=10, **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(_drawn(key, torch.randn(tensor.shape, generator=generator)))
    return model.double().eval()


def _drawn(key: str, noise: Tensor) -> Tensor:
    """A value such that every tensor matters: kernels keep the variance, scales are near one."""
    if key.endswith("running_var"):
        return 1 + 0.2 * noise.abs()
    if key.endswith(("cls_token", "pos_embed", "bias", "running_mean")):
        return 0.2 * noise
    return 1 + 0.2 * noise if noise.ndim == 1 else noise / math.sqrt(noise[0].numel())
