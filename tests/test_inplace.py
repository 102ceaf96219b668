"""Activations that overwrite their input."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from blockforge.blocks.inplace import activation_inplace


def test_gelu_overwrites_its_input_in_inference_alone() -> None:
    gelu, x = activation_inplace("gelu"), torch.randn(3, 5)
    before = x.clone()
    recorded = gelu(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(recorded, F.gelu(before))
    with torch.no_grad():
        assert gelu(x).data_ptr() == x.data_ptr()
    torch.testing.assert_close(x, recorded)


def test_a_captured_graph_overwrites_nothing() -> None:
    gelu, x = activation_inplace("gelu"), torch.randn(3, 5)
    before = x.clone()
    with torch.no_grad():
        exported = torch.export.export(gelu, (x,)).module()
        torch.testing.assert_close(exported(x), F.gelu(before))
    assert torch.equal(x, before)
