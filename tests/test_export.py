"""Exported files compute what the model computes, in every family, and at sizes that may vary."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.blocks.base import Shape
from blockforge.blocks.layers import Conv2d, Linear
from blockforge.blocks.maps import Maps
from blockforge.blocks.mixers.attention import Attention
from blockforge.blocks.windows import cut_windows, join_windows
from blockforge.cli import main
from blockforge.export import Exported, ExportError, export_model, files
from blockforge.testing import randomise


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
FULL = ["smt_t", "vssd_tiny", "mambavision_t", "sparx_mamba_t", "strip_mlp_t", "swin_tiny", "sparx_swin_t"]
"""Whole networks, each of another make."""
ANY_SIZE = [
    "convnext_t",
    *(
        pytest.param(n, marks=pytest.mark.slow)
        for n in SMALL
        if not n.startswith(("convnext", "deit", "mlp_mixer", "smlp", "strip_mlp"))
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
    assert made.error <= 1e-4
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
@pytest.mark.parametrize("name", FULL)
def test_an_onnx_file_of_a_whole_network_computes_the_same(name: str, tmp_path: Path) -> None:
    made = export_model(bf.build(name, seed=0), tmp_path / "net.onnx")
    assert [c.shape for c in made.checks] == [(1, 3, 224, 224), (3, 3, 224, 224)]
    assert made.error <= 1e-5


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
    ],
)
def test_an_architecture_for_one_size_says_why(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"dynamic height and width: .*{why}"):
        exported(name, tmp_path / "net.pt2", "export", "hw")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_program_that_windows_tie_to_several_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not take images of 1x3x64x64: .*\n.*let the batch too"):
        exported("mambavision_t", tmp_path / "net.pt2", "export", "hw")
    assert not list(tmp_path.iterdir())
    assert exported("mambavision_t", tmp_path / "net.onnx", "onnx", "hw").shape == (1, 3, "32*rows", "32*columns")


class Windows(torch.nn.Module):
    """Cut and join, with what they give in between: which position lies where. Joined as they are, and made smaller."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tiles = cut_windows(x, 4, self.shift)
        joined = (join_windows(t, 4, x.shape[1], x.shape[2], self.shift) for t in (tiles, tiles[:, ::2, 1:]))
        return tiles, *joined


@pytest.mark.parametrize("shift", [0, 3])
def test_windows_of_an_exported_graph_serve_every_size(shift: int) -> None:
    """Also those that one window covers, and in any batch."""

    def numbered(batch: int, height: int, width: int) -> torch.Tensor:
        return torch.arange(1.0, 1 + batch * height * width * 2).reshape(batch, height, width, 2)

    any_size = dict.fromkeys((0, 1, 2), torch.export.Dim.DYNAMIC)
    program = torch.export.export(Windows(shift), (numbered(2, 9, 11),), dynamic_shapes=(any_size,)).module()
    for size in ((2, 9, 11), (1, 8, 12), (3, 4, 4), (1, 3, 2), (2, 3, 9), (1, 5, 4)):
        for got, wanted in zip(program(numbered(*size)), Windows(shift)(numbered(*size)), strict=True):
            assert torch.equal(got, wanted), size


def test_masks_of_shifted_windows_follow_the_size() -> None:
    """And so do windows, on maps that are smaller too."""
    module = randomise(Attention(num_heads=2, window=3, shift=1, rel_pos_bias=True).build(Shape(4, 6, 8))).eval()
    any_size = dict.fromkeys((0, 1, 2), torch.export.Dim.DYNAMIC)
    program = torch.export.export(module, (torch.zeros(2, 7, 8, 8),), dynamic_shapes=(any_size,)).module()
    for size in ((2, 7, 8), (1, 4, 6), (3, 3, 9), (1, 3, 2), (2, 2, 5), (1, 2, 2)):
        x = torch.randn(*size, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(program(x), module(x), rtol=1e-5, atol=1e-5)


def test_a_pointwise_convolution_stays_one() -> None:
    """The dilation that makes it fast on a CPU in torch is not in the graph, nor the slice that stands for a stride."""
    layers = Maps(Conv2d(4, 8, 1, stride=2), Conv2d(8, 8, 1, groups=8), Linear(8, 4)).eval()
    x = torch.randn(1, 6, 6, 4, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(layers, (x,))
    found = [n for n in program.graph.nodes if n.target is torch.ops.aten.conv2d.default]
    assert len(found) == 2
    assert all(n.args[5:6] in ((), ([1, 1],)) for n in found)
    assert not [n for n in program.graph.nodes if n.target is torch.ops.aten.slice.Tensor]
    torch.testing.assert_close(program.module()(x), layers(x))


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


# --- maps, and other types

TINY = narrow(8, (1, 1, 1, 1))


@pytest.mark.parametrize("format", ["export", "onnx"])
@pytest.mark.parametrize(("out_indices", "names"), [(None, (0, 1, 2, 3)), ((1, 3), (1, 3)), ((0,), (0,))])
def test_maps_are_outputs_by_name(format: files.Format, out_indices: Any, names: Any, tmp_path: Path) -> None:
    model = bf.build("convnext_t", TINY, features_only=True, out_indices=out_indices, seed=0)
    made = export_model(model, tmp_path / "net", format)
    assert made.outputs == tuple(f"map_{i}" for i in names)
    assert (made.dtype, made.error <= 1e-4, len(made.checks)) == ("float32", True, 2)
    if format == "onnx":
        import onnx

        assert [o.name for o in onnx.load(tmp_path / "net").graph.output] == list(made.outputs)


@pytest.mark.parametrize(
    ("format", "dtype"), [("export", torch.bfloat16), ("export", torch.float16), ("onnx", torch.float16)]
)
@pytest.mark.parametrize("features_only", [False, True])
def test_types_of_16_bits(format: files.Format, dtype: torch.dtype, features_only: bool, tmp_path: Path) -> None:
    model = bf.build("convnext_t", TINY, features_only=features_only, seed=0).to(dtype)
    made = export_model(model, tmp_path / "net", format)
    assert made.dtype == str(dtype).removeprefix("torch.")
    assert made.error <= 5e-2
    assert next(model.parameters()).dtype == dtype


def _mixed() -> Any:
    model = bf.build("convnext_t", TINY)
    model.head.half()
    return model


def _quantised() -> Any:
    model = bf.build("convnext_t", TINY).eval()
    model.head.fc = torch.ao.nn.quantized.dynamic.Linear(8, 4)  # type: ignore[attr-defined]
    return model


REFUSED: dict[str, tuple[Any, files.Format, str]] = {
    "bf16": (lambda: bf.build("convnext_t", TINY).bfloat16(), "onnx", r"runs no bfloat16 on a CPU.*--format export"),
    "mixed": (_mixed, "export", r"holds float32 \(.*\), float16 \(head.*one type of floats.*model\.float\(\)"),
    "quantised": (_quantised, "onnx", r"is quantised \(head\.fc is torch.*Linear\).*onnxruntime\.quantization"),
    "meta": (lambda: bf.build("convnext_t", TINY).to("meta"), "export", "has no values .*load its weights first"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_kinds_that_cannot_be_exported_say_so(case: str, tmp_path: Path) -> None:
    make, format, message = REFUSED[case]
    with pytest.raises(ExportError, match=f"(?s){message}"):
        export_model(make(), tmp_path / "net", format)
    assert not list(tmp_path.iterdir())


def test_a_map_that_differs_is_found(tmp_path: Path) -> None:
    model = bf.build("poolformer_s12", SMALL["poolformer_s12"], features_only=True, seed=0)
    model.get_submodule("stages.3.layers.0").register_forward_hook(
        lambda m, a, y: y * (1 if torch.compiler.is_exporting() else 2)
    )
    with pytest.raises(ExportError, match=r"differs from the model by"):
        export_model(model, tmp_path / "net.pt2", "export")


# --- the command


def test_the_command_exports_maps_with_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, sets = tmp_path / "net.pt2", [a for k, v in TINY.items() for a in ("--set", f"{k}={v}")]
    whole = bf.build("convnext_t", TINY, seed=0)
    bf.save_model(whole, tmp_path / "run")
    argv = ["export", "convnext_t", "--format", "export", "-o", str(file), *sets]
    argv += ["--weights", str(tmp_path / "run" / "model.safetensors"), "--out-indices", "1,3"]
    assert main(argv) == 0
    assert "gives map_1, map_3" in capsys.readouterr().out
    x = torch.randn(2, 3, 64, 64)
    maps = whole.eval().features((1, 3))(x)
    for got, wanted in zip(torch.export.load(file).module()(x), maps, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert main([*argv[:-1], "7"]) == 1
    assert main([*argv[:-1], "x"]) == 2


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
