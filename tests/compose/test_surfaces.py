"""What people do with a network works where its blocks are composed, too."""

from __future__ import annotations

import copy
import html
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge.cli import main
from blockforge.compiler.diff import changes
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.draw.layout import label
from blockforge.errors import BlockforgeError
from blockforge.testing import check_spec

SMALL = sorted((Path(__file__).parent / "small").glob("*.yaml"))
FILES = {file.stem: file for file in SMALL}
CLASSIFIERS = [file for file in SMALL if file.stem != "maps"]


def named(file: Path) -> str:
    return file.stem


@pytest.fixture(params=SMALL, ids=named, scope="module")
def built(request: pytest.FixtureRequest) -> Backbone:
    return bf.build(request.param, seed=0).eval()


@pytest.fixture
def model(built: Backbone) -> Backbone:
    return copy.deepcopy(built)


def image(model: Backbone, batch: int = 2, seed: int = 0) -> Tensor:
    size = model.arch.plan.input.size
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("file", [f for f in SMALL if f.stem != "swin"], ids=named)
def test_the_network_is_what_its_graph_says(file: Path) -> None:
    check_spec(file)


def test_saved_folders_stand_alone(model: Backbone, tmp_path: Path) -> None:
    x = image(model)
    bf.save_model(model, tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    with torch.no_grad():
        for other in (bf.load_model(tmp_path / "a"), bf.from_pretrained(tmp_path / "b")):
            assert torch.equal(other.eval()(x), model(x))


def test_copies_pickles_and_empty_models_run(model: Backbone) -> None:
    x = image(model)
    empty = bf.build(model.arch, device="meta").to_empty(device="cpu").eval()
    empty.load_state_dict(model.state_dict())
    with torch.no_grad():
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), empty):
            close(other(x), model(x))


def test_feature_maps(model: Backbone) -> None:
    x = image(model)
    alone = bf.build(model.arch, features_only=True).eval()
    alone.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        close(model.forward_head(last), model(x))
        for own, shared, info in zip(alone(x), maps, model.feature_info, strict=True):
            assert torch.equal(own, shared)
            assert own.shape[1] == info["num_chs"]


@pytest.mark.parametrize("file", CLASSIFIERS, ids=named)
def test_another_classifier(file: Path, tmp_path: Path) -> None:
    model = bf.build(file, seed=0).eval()
    x = image(model)
    kept = {k: v.clone() for k, v in model.state_dict().items() if "logits" not in k}
    with torch.no_grad():
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert model.get_classifier().out_features == 7
        bf.save_model(model, tmp_path)
        assert torch.equal(bf.load_model(tmp_path).eval()(x), model(x))
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        model.reset_classifier(0)
        close(model(x), features)
        model.double().reset_classifier(5)
        assert model.get_classifier().weight.dtype == torch.float64
        assert model(x.double()).shape == (2, 5)
    assert all(torch.equal(model.state_dict()[k], v.double() if v.is_floating_point() else v) for k, v in kept.items())


def test_each_of_two_classifiers_is_replaced() -> None:
    model = bf.build(FILES["repvit"])
    model.reset_classifier(7)
    assert [m.out_features for n, m in model.head.named_modules() if n.endswith("logits")] == [7, 7]


def test_classes_that_a_classifier_says_itself_stay() -> None:
    model = bf.build(FILES["star"], {"head": ["global_pool", {"op": "logits", "num_classes": 3}]})
    model.reset_classifier(7)
    assert model.get_classifier().out_features == 3


def test_a_head_without_classifier() -> None:
    model = bf.build(FILES["maps"]).eval()
    assert isinstance(model.get_classifier(), nn.Identity)
    with pytest.raises(BlockforgeError, match="the head has no 'logits'"):
        model.reset_classifier(7)
    assert model(image(model)).shape == (2, 12, 8, 8)


def test_a_pooling_that_the_head_has_not_by_a_key() -> None:
    model = bf.build(FILES["star"])
    with pytest.raises(BlockforgeError, match="has no pooling that 'max' could replace"):
        model.reset_classifier(7, global_pool="max")
    assert model.num_classes == 10


def test_features_are_dropped_before_the_classifier() -> None:
    model = bf.build(FILES["repvit"], seed=0)
    model.head.drop_rate = 0.5
    x = torch.randn(4, 8, 8, 32)
    assert not torch.equal(model.head.train()(x), model.head(x))
    model.eval()
    assert torch.equal(model.head(x), model.head(x))


def test_checkpointing_gives_the_same_gradients(model: Backbone) -> None:
    grads = []
    for enabled in (False, True):
        model.train().zero_grad()
        model.set_grad_checkpointing(enabled)
        torch.manual_seed(0)
        model(image(model)).square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() == dict(model.named_parameters()).keys()
    for name, grad in grads[0].items():
        close(grads[1][name], grad)


def test_parameter_groups() -> None:
    assert bf.build(FILES["hiera"]).no_weight_decay() == {"stem.pos_embed.pos_embed"}
    assert any(n.endswith("rel_pos.table") for n in bf.build(FILES["maxvit"]).no_weight_decay())


@pytest.mark.parametrize("name", ["repvit", "swin", "hiera"])
def test_captured(name: str) -> None:
    model = bf.build(FILES[name], seed=0).eval()
    x, other = image(model), image(model, batch=3, seed=1)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: batch}}).module()
    with torch.no_grad():
        close(program(other), model(other))


@pytest.mark.parametrize("name", ["repvit", "maps"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced(name: str) -> None:
    model = bf.build(FILES[name], seed=0).eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, image(model))
        other = image(model, batch=3, seed=1)
        close(traced(other), model(other))


@pytest.mark.parametrize("name", ["repvit", "maps"])
def test_compiled_before_it_ever_ran(name: str) -> None:
    """A whole graph, of a model that is new: nothing is made in the first call."""
    torch._dynamo.reset()
    model = bf.build(FILES[name], seed=0).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        y = compiled(image(model))
        close(y, model(image(model)))


def test_types_and_layouts(model: Backbone) -> None:
    x = image(model)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model(x)
        close(model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)), exact)
        half = model.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    for y in (low, half):
        assert ((y.float() - exact).norm() / exact.norm()).item() < 0.1


def test_modules_in_the_place_of_leaves_run(model: Backbone) -> None:
    """Quantisers, adapters and the like put modules of their own there."""

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return 2 * self.inner(x)

    new = []
    for name, leaf in list(model.named_modules()):
        if isinstance(leaf, nn.Conv2d | nn.Linear | nn.GELU | nn.ReLU6) and "rel_pos" not in name:
            parent, _, last = name.rpartition(".")
            new.append(Doubled(leaf))
            setattr(model.get_submodule(parent), last, new[-1])
    with torch.no_grad():
        model(image(model))
    assert [m.calls for m in new] == [1] * len(new)


def test_synchronised_norms_give_the_same(model: Backbone) -> None:
    x = image(model)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)).eval()
    with torch.no_grad():
        close(converted(x), model(x))


@pytest.mark.parametrize("ending", ["svg", "dot", "mmd"])
@pytest.mark.parametrize("file", SMALL, ids=named)
def test_pictures_name_the_ops(file: Path, ending: str, tmp_path: Path) -> None:
    picture = tmp_path / f"net.{ending}"
    assert main(["graph", str(file), "-o", str(picture), "--parts"]) == 0
    names = {label(node) for node in bf.compile(file).nodes.values()}
    text = html.unescape(picture.read_text().replace("#gt;", "&gt;"))
    assert not [name for name in names if name not in text]


def test_diff_says_what_differs_inside_blocks(tmp_path: Path) -> None:
    text = FILES["repvit"].read_text()
    wider = tmp_path / "wider.yaml"
    wider.write_text(text.replace("dwconv, kernel_size: 3}, batch_norm]", "dwconv, kernel_size: 5}, batch_norm]"))
    found = {c.name: c for c in changes(bf.compile(FILES["repvit"]), bf.compile(wider))}
    assert "stem" not in found
    assert "head" not in found
    layer = found["stages.0.layers.0"]
    assert layer.before is not None
    assert layer.before.startswith("rep_dw(parallel.conv.dwconv(")
    assert layer.before.endswith("kernel_size=3) -> 16x16x16) + parallel + ffn -> 16x16x16")
    assert layer.after == layer.before.replace("kernel_size=3", "kernel_size=5")


def test_show_lists_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(FILES["maxvit"]), "--parts", "--no-layers"]) == 0
    text = capsys.readouterr().out
    attend = next(line.split() for line in text.splitlines() if "attn.attend" in line)
    assert attend == ["attn.attend", "attend", "4x", "16x4x4", "98", "32.8K"]
    assert "stages.1.layers.1.chain, on 32x4x4" in text


def test_a_folder_is_all_that_another_machine_needs(tmp_path: Path) -> None:
    """Definitions of other files are in the saved spec."""
    library = tmp_path / "lib.yaml"
    library.write_text(
        "blockforge: 1\ndefine:\n  wide: [{op: linear, dim: $(2 * in)}, gelu, {op: linear, dim: $out}]\n"
    )
    spec = tmp_path / "net.yaml"
    shutil.copy(FILES["maps"], spec)
    text = spec.read_text().replace("define:", "use: [lib.yaml]\ndefine:").replace("op: composed,", "op: wide,")
    spec.write_text(text)
    model = bf.build(spec, seed=0).eval()
    bf.save_model(model, tmp_path / "saved")
    library.unlink()
    with torch.no_grad():
        assert torch.equal(bf.load_model(tmp_path / "saved").eval()(image(model)), model(image(model)))
