"""Exported files compute what the model computes, in every family, and at sizes that may vary."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.export import Exported, ExportError, export_model, files, scan
from blockforge.kernels.cross_scan.reference import cross_scan
from blockforge.kernels.selective_scan.reference import selective_scan


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest collects torch's log of every symbolic shape, which takes longer than to export."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


def narrow(width: int, depths: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """Overrides for a small network: stages of `width`, twice that, and so on."""
    stages = {f"stages.{i}.dim": width * 2**i for i in range(len(depths))}
    return {"input.size": 64, **stages, **{f"stages.{i}.depth": d for i, d in enumerate(depths)}, **more}


FOUR = (1, 1, 1, 1)
SMALL: dict[str, dict[str, Any]] = {
    "convnext_t": narrow(8, FOUR),
    "deit_s": narrow(24, (2,)),
    "focalnet_t": narrow(8, FOUR),
    "mambavision_t": narrow(16, (1, 1, 2, 2), **{"stages.2.window": 3, "stages.3.window": 2}),
    "mlla_t": narrow(16, FOUR),
    "mlp_mixer_b16": narrow(16, (2,)),
    "poolformer_s12": narrow(8, FOUR),
    "resnet50": narrow(16, FOUR),
    "smlp_t": narrow(8, FOUR),
    "smt_t": narrow(16, (1, 1, 2, 1)),
    "sparx_mamba_t": narrow(8, (1, 2, 4, 1)),
    "sparx_swin_t": narrow(24, (1, 1, 4, 1), **{"let.window": 3}),
    "strip_mlp_t_light": narrow(8, FOUR),
    "swin_tiny": narrow(24, (2, 1, 1, 1), **{"let.window": 3}),
    "vmamba_tiny_s1l8": narrow(8, FOUR),
    "vssd_micro": narrow(16, FOUR),
}
"""One network of each family."""
ANY_SIZE = [
    "convnext_t",
    *(
        pytest.param(n, marks=pytest.mark.slow)
        for n in SMALL
        if n.startswith(("focal", "mlla", "pool", "res", "smt", "sparx_mamba", "vmamba", "vssd"))
    ),
]


def exported(name: str, file: Path, format: files.Format, *dynamic: Any) -> Exported:
    return export_model(bf.build(name, SMALL[name], seed=0), file, format, dynamic)


def some(*fast: str) -> list[Any]:
    """All families, those that are not named as slow tests."""
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in SMALL]


@pytest.mark.parametrize("name", some("convnext_t", "mambavision_t"))
def test_a_program_of_every_family_serves_any_batch(name: str, tmp_path: Path) -> None:
    made = exported(name, tmp_path / "net.pt2", "export", "batch")
    assert made.shape == ("batch", 3, 64, 64)
    assert [c.shape[0] for c in made.checks] == [1, 3]
    assert made.error <= files.TOLERANCE
    assert made.bytes == (tmp_path / "net.pt2").stat().st_size


@pytest.mark.parametrize("name", some("poolformer_s12"))
def test_an_onnx_file_of_every_family_serves_any_batch(name: str, tmp_path: Path) -> None:
    import onnx

    made = exported(name, tmp_path / "net.onnx", "onnx", "batch")
    model = onnx.load(tmp_path / "net.onnx")
    assert {n.domain for n in model.graph.node} == {""}
    assert not model.functions
    assert made.nodes == len(model.graph.node)
    assert made.opset == model.opset_import[0].version
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == list(made.shape)
    assert [f.name for f in tmp_path.iterdir()] == ["net.onnx"]  # the weights are inside


@pytest.mark.parametrize("name", ANY_SIZE)
def test_height_and_width_may_vary(name: str, tmp_path: Path) -> None:
    made = exported(name, tmp_path / "net.pt2", "export", "batch", "hw")
    assert made.shape == ("batch", 3, "32*rows", "32*columns")
    assert {c.shape[2:] for c in made.checks} == {(64, 64), (128, 96), (96, 160)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY_SIZE)
def test_height_and_width_may_vary_in_onnx(name: str, tmp_path: Path) -> None:
    assert len(exported(name, tmp_path / "net.onnx", "onnx", "batch", "hw").checks) == 6


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("deit_s", "vit_stem was built for maps of 4x4"),
        ("mlp_mixer_b16", "token_mlp was built for maps of 4x4"),
        ("strip_mlp_t_light", "strip_mixing was built for maps of 16x16"),
        ("swin_tiny", "maps are cut into windows of 3"),
        ("mambavision_t", "maps are cut into windows of 3"),
    ],
)
def test_an_architecture_for_one_size_says_why(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"dynamic height and width: .*{why}"):
        exported(name, tmp_path / "net.pt2", "export", "hw")
    assert not list(tmp_path.iterdir())


def test_a_fixed_batch_is_one_image(tmp_path: Path) -> None:
    made = exported("convnext_t", tmp_path / "net.pt2", "export")
    assert made.shape == (1, 3, 64, 64)


def test_a_file_that_computes_something_else_does_not_appear(tmp_path: Path) -> None:
    model = bf.build("poolformer_s12", SMALL["poolformer_s12"], seed=0).train()
    model.head.register_forward_hook(lambda m, a, y: y * (1 if torch.compiler.is_exporting() else 2))
    with pytest.raises(ExportError, match=r"differs from the model by .* at images of 1x3x64x64: nothing written"):
        export_model(model, tmp_path / "net.pt2", "export")
    assert not list(tmp_path.iterdir())
    assert model.training


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("batch", "dim", "length", "states", "groups"), [
    (2, 6, 300, 1, 1), (2, 8, 70, 8, 2), (1, 4, 33, 16, 4), (1, 4, 7, 3, 1), (1, 2, 1, 1, 1),
])  # fmt: skip
def test_the_captured_scan_is_the_scan(
    batch: int, dim: int, length: int, states: int, groups: int, reverse: bool
) -> None:
    u, delta = torch.randn(batch, dim, length), 3 * torch.randn(batch, dim, length)
    A, D, bias = -4 * torch.rand(dim, states), torch.randn(dim), torch.randn(dim)
    B, C = torch.randn(2, batch, groups, states, length).unbind()
    options = {"delta_softplus": True, "reverse": reverse}
    y = scan.selective_scan(u, delta, A, B, C, D, delta_bias=bias, **options)
    exact = [t.double() for t in (u, delta, A, B, C, D)]
    wanted = selective_scan(*exact, delta_bias=bias.double(), **options)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("directions", [("rows",), ("rows", "columns", "rows_back", "columns_back")])
def test_the_captured_scan_of_a_map_is_the_scan(directions: Any, window: int | None) -> None:
    count = len(directions)
    x, dt, B, C = (torch.randn(2, 7, 9, *s) for s in ((6,), (count, 3), (count, 2), (count, 2)))
    weight, A, D, bias = (
        torch.randn(count, 6, 3),
        -torch.rand(count, 6, 2),
        torch.randn(count, 6),
        torch.randn(count, 6),
    )
    order: dict[str, Any] = {"directions": directions, "window": window}
    y = scan.cross_scan(x, dt, B, C, weight, A, D, dt_bias=bias, **order)
    exact = [t.double() for t in (x, dt, B, C, weight, A, D)]
    torch.testing.assert_close(y.double(), cross_scan(*exact, dt_bias=bias.double(), **order), rtol=1e-5, atol=1e-5)


def test_long_scans_take_few_operators() -> None:
    class Scan(torch.nn.Module):
        def forward(self, u: Any, A: Any, B: Any) -> Any:
            return scan.selective_scan(u, u, A, B, B, delta_softplus=True)

    def operators(length: int) -> int:
        given = (torch.randn(1, 4, length), -torch.rand(4, 1), torch.randn(1, 1, 1, length))
        return sum(n.op == "call_function" for n in torch.export.export(Scan(), given).graph.nodes)

    assert operators(3136) < 120
    assert operators(3136) == operators(2500)


# --- the command


def test_the_command_writes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.pt2"
    sets = [a for k, v in SMALL["convnext_t"].items() for a in ("--set", f"{k}={v}")]
    argv = ["export", "convnext_t", "--format", "export", "-o", str(file), "--seed", "0", *sets]
    assert main([*argv, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == file.stat().st_size
    assert report["shape"] == ["batch", 3, 64, 64]
    model = bf.build("convnext_t", SMALL["convnext_t"], seed=0).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.export.load(file).module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["smt_t", "--format", "tflite"], 2, "'tflite' is not one of"),
        (["smt_t", "--dynamic", "batch,h"], 2, "known: batch, hw, none"),
        (["smt_t", "-o", "{tmp}/no/net.onnx"], 1, "there is no folder"),
        (["smt_t", "-o", "{tmp}"], 1, "it is a folder"),
        (["smt_t", "-o", "{tmp}/net.onnx", "--weights", "{tmp}/none.pth"], 1, "no weights at"),
        (["nothing", "-o", "{tmp}/net.onnx"], 1, "nothing"),
    ],
)
def test_mistakes_are_named(
    argv: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *(a.format(tmp=tmp_path) for a in argv)]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("blockforge.extras.find_spec", lambda name: None)
    assert main(["export", "smt_t", "-o", str(tmp_path / "net.onnx")]) == 1
    assert "pip install 'blockforge[export]'" in capsys.readouterr().err
