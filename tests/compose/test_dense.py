"""Networks for dense prediction: counts of their parts, and every law at a small size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import blockforge as bf
from blockforge.spec import from_text
from blockforge.testing import check_costs, check_memory, check_spec

DENSE = Path(__file__).parents[2] / "specs" / "dense"
FILES = sorted(DENSE.glob("*.yaml"))
NARROW: dict[str, dict[str, Any]] = {
    "upernet_swin_tiny": {"input.size": 192, **{f"stages.{i}.dim": 32 for i in range(8, 13)}},
    "unet_smt_t": {"input.size": 64},
    "fpn_resnet50": {"input.size": 64, **{f"stages.{i}.dim": 32 for i in range(4, 9)}},
}
ZOO = ("convnext_t", "fastvit_t8", "mambavision_t", "pvt_v2_b1", "smt_t", "swin_tiny", "vmamba_tiny_s1l8")


def name(file: Path) -> str:
    return file.stem


def conv_bn(dim: int, out: int, kernel_size: int = 1) -> int:
    return counted(nn.Conv2d(dim, out, kernel_size, bias=False), nn.BatchNorm2d(out))


def counted(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def parts(arch: bf.Architecture) -> dict[str, int]:
    """Parameters by stage and head."""
    found: dict[str, int] = {}
    for unit in arch.units:
        site = unit.first.site
        key = str(site.stage) if site.stage is not None else site.output or "stem"
        found[key] = found.get(key, 0) + unit.params
    return found


def test_parts_of_upernet() -> None:
    """As mmsegmentation has them: 512 channels, pools of 1, 2, 3 and 6, an auxiliary head of 256 channels."""
    with torch.device("meta"):
        dims = (96, 192, 384, 768)
        wanted = {str(4 + i): counted(nn.LayerNorm(dim)) for i, dim in enumerate(dims)}
        wanted["8"] = 4 * conv_bn(768, 512) + conv_bn(768 + 4 * 512, 512, 3)
        wanted |= {"9": conv_bn(384, 512), "10": conv_bn(192, 512), "11": conv_bn(96, 512)}
        wanted["12"] = 3 * conv_bn(512, 512, 3) + conv_bn(4 * 512, 512, 3)
        wanted["seg"] = counted(nn.Conv2d(512, 150, 1))
        wanted["aux"] = conv_bn(384, 256, 3) + counted(nn.Conv2d(256, 150, 1))
    arch, encoder = bf.compile(DENSE / "upernet_swin_tiny.yaml"), parts(bf.compile("swin_tiny"))
    assert parts(arch) == {k: v for k, v in encoder.items() if k != "head"} | wanted
    assert arch.params == 59_941_862
    assert {k: tuple(h.last.out_shape) for k, h in arch.heads.items()} == {
        "seg": (512, 512, 150),
        "aux": (512, 512, 150),
    }
    assert arch.features == (4, 5, 6, 7)


def test_parts_of_a_feature_pyramid() -> None:
    """As mmsegmentation's: levels of 256 channels, branches of 128."""
    with torch.device("meta"):
        lateral = {7 - i: counted(nn.Conv2d(dim, 256, 1)) for i, dim in enumerate((256, 512, 1024, 2048))}
        smooth, branches = counted(nn.Conv2d(256, 256, 3)), 4 * conv_bn(256, 128, 3) + 3 * conv_bn(128, 128, 3)
        head = counted(nn.Conv2d(128, 150, 1))
    arch, encoder = bf.compile(DENSE / "fpn_resnet50.yaml"), parts(bf.compile("resnet50"))
    wanted = {str(i): n for i, n in lateral.items()} | {"8": 4 * smooth + branches, "head": head}
    assert parts(arch) == encoder | wanted
    assert arch.params == 28_495_574


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_law_at_a_small_size(file: Path) -> None:
    arch = bf.compile(file, NARROW[file.stem])
    assert len(arch.heads) == (2 if "upernet" in file.stem else 1)
    check_spec(arch)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=name)
def test_costs_and_memory_at_their_own_size(file: Path) -> None:
    model = bf.build(file, seed=0)
    check_costs(model)
    check_memory(model)


@pytest.mark.parametrize("encoder", ZOO)
def test_a_pyramid_on_any_encoder(encoder: str) -> None:
    text = (DENSE / "fpn_resnet50.yaml").read_text(encoding="utf-8").replace("extends: resnet50", f"extends: {encoder}")
    arch = bf.compile(from_text(text))
    assert tuple(arch.heads["head"].last.out_shape) == (512, 512, 150)
    own, alone = parts(arch), parts(bf.compile(encoder))
    assert {k: v for k, v in own.items() if k in alone and k != "head"} == {
        k: v for k, v in alone.items() if k != "head"
    }
