"""segmentation-models-pytorch decodes our models through timm, as `tu-bf_...`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm_models import load_timm

from blockforge.blocks.layers import DropPath


@pytest.fixture(scope="module")
def smp() -> Any:
    load_timm()
    import blockforge.timm  # noqa: F401  (registers)

    how = "not installed: pip install --no-deps -r tests/no-deps-requirements.txt"
    return pytest.importorskip("segmentation_models_pytorch", reason=how)


@pytest.mark.parametrize("decoder", ["FPN", "UPerNet"])
@pytest.mark.parametrize("encoder", ["bf_smt_t", "bf_vssd_tiny"])
def test_decoders_train(smp: Any, decoder: str, encoder: str) -> None:
    model = getattr(smp, decoder)(f"tu-{encoder}", encoder_weights=None, in_channels=3, classes=5)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0  # a branch that both images drop has no gradient
    x, target = torch.randn(2, 3, 64, 96), torch.randint(0, 5, (2, 64, 96))
    logits = model(x)
    assert logits.shape == (2, 5, 64, 96)
    loss = torch.nn.functional.cross_entropy(logits, target)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for n, p in model.named_parameters() if n.endswith("norm.weight"))
    assert model.encoder.out_channels[2:] == model.encoder.model.feature_info.channels()
