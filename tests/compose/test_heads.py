"""Heads that end in maps, and several of them by name."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm_models
import torch
from heads import AUX, BASE, HEADS, MAP, SEG, SHAPES, TEXTS, built, images, same, shapes
from torch import nn

import blockforge as bf
from blockforge.analyze import AnalysisError
from blockforge.analyze.cam import grad_cam
from blockforge.cli import main
from blockforge.compiler.diff import changes
from blockforge.compiler.lowering.outputs import by_name, loss_of, main_output
from blockforge.eject.check import write_ejected
from blockforge.errors import BlockforgeError, OpError, SpecError
from blockforge.export import export_model
from blockforge.measure.forward import prove
from blockforge.measure.memory import allocated_peak
from blockforge.spec import from_text
from blockforge.testing import check_spec
from blockforge.testing.measure import count_macs, randomise
from blockforge.testing.models import check_deployed
from blockforge.train.data import DataError
from blockforge.train.prepare import make_model

Tiny = Callable[..., str]


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest) -> str:
    return TEXTS[request.param]


# --- what they give and cost


def test_what_they_give() -> None:
    assert shapes(built(MAP)) == SHAPES["seg"]
    assert shapes(built(HEADS)) == SHAPES
    arch = bf.compile(from_text(HEADS))
    assert list(arch.heads) == ["seg", "aux", "top"]
    assert arch.main_head.name == "heads.seg"


@pytest.mark.parametrize("classes", [5, 0])
def test_the_network_is_what_its_graph_says(text: str, classes: int) -> None:
    check_spec(from_text(text), {"num_classes": classes})


ASIDE = """
blockforge: 1
name: aside
input: {size: 32}
num_classes: 5
defaults: {norm: layer_norm}
blocks: {b: [mlp]}
stem: conv_stem
downsample: conv_downsample
stages:
  - {name: first, dim: 8, depth: 1, layers: b}
  - {name: second, dim: 16, depth: 1, layers: b}
  - {name: aside, from: first, dim: 8, depth: 2, layers: b}
head: {from: second, op: [global_pool, layer_norm, logits]}
features: [first, aside]
"""


def test_what_only_features_name_is_no_part_of_a_classifier() -> None:
    model = check_spec(from_text(ASIDE))
    arch, image = model.arch, torch.randn(1, 3, 32, 32)
    aside = [n for name, n in arch.nodes.items() if name not in arch.computed]
    assert [n.name for n in aside] == ["stages.2.layers.0.mlp", "stages.2.layers.1.mlp"]
    assert (
        arch.macs
        == count_macs(lambda: model.eval()(image))
        == sum(n.macs for n in arch.nodes.values()) - sum(n.macs for n in aside)
    )
    assert arch.params == sum(p.numel() for p in model.parameters())
    maps = bf.build(from_text(ASIDE), features_only=True).eval()
    needed = [n.macs for n in arch.nodes.values() if n.name.startswith(("stem", "stages.0", "stages.2"))]
    assert count_macs(lambda: maps(image)) == sum(needed)


def test_deployed(text: str) -> None:
    check_deployed(randomise(built(text)))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_memory_is_what_is_allocated(text: str, checkpointing: bool) -> None:
    arch = bf.compile(from_text(text), {"input.size": 64})
    model = bf.build(arch, seed=0).train()
    model.set_grad_checkpointing(checkpointing)
    x = torch.randn(8, 3, 64, 64)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        loss_of(model(x)).backward()

    step()
    predicted = arch.training_memory(8, "plain_sgd", checkpointing)
    for parameter in model.parameters():
        parameter.grad = None
    assert predicted.step == pytest.approx(allocated_peak(step), rel=0.1)


def test_outputs_live_to_the_end() -> None:
    """The first output is large, and what runs behind it comes on top."""
    heads = "{big: [{op: resize, scale: 16}, {op: linear, dim: 64}], late: [{op: linear, dim: 2048}, global_pool]}"
    arch = bf.compile(from_text(f"{BASE}heads: {heads}\n"))
    big, late = (arch.nodes[f"heads.{name}"] for name in ("big", "late"))
    assert arch.live_bytes[late.name] > big.costs.activation_bytes + 4 * 4 * 2048 * 4
    check_spec(arch)


def test_one_head_by_name_costs_what_it_costs_alone() -> None:
    alone, named = bf.compile(from_text(MAP)), bf.compile(from_text(f"{BASE}heads: {{seg: {SEG}}}\n"))
    assert (alone.hash, alone.macs, alone.params) == (named.hash, named.macs, named.params)
    assert shapes(bf.build(named)) == {"seg": SHAPES["seg"]}


def test_the_order_of_heads_counts_and_their_names_do_not() -> None:
    pair = [
        bf.compile(from_text(f"{BASE}heads: {{{heads}}}\n")).hash
        for heads in (f"a: {SEG}, b: {AUX}", f"b: {AUX}, a: {SEG}")
    ]
    renamed = bf.compile(from_text(f"{BASE}heads: {{x: {SEG}, y: {AUX}}}\n")).hash
    assert pair[0] != pair[1]
    assert pair[0] == renamed


def test_names_of_tensors() -> None:
    assert {n.partition(".")[0] for n in built(MAP).state_dict()} == {"stem", "stages", "head"}
    names = {n for n in built(HEADS).state_dict() if n.startswith("heads.")}
    assert {"heads.seg.logits.weight", "heads.aux.conv.weight", "heads.top.fc.bias"} <= names


# --- surfaces


def test_copies_pickles_and_folders(text: str, tmp_path: Path) -> None:
    model, x = built(text), images()
    bf.save_model(model, tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    with torch.no_grad():
        for other in (
            copy.deepcopy(model), pickle.loads(pickle.dumps(model)), bf.load_model(tmp_path / "a"),
            bf.from_pretrained(tmp_path / "b"),
        ):  # fmt: skip
            same(other.eval()(x), model(x))
    card = (tmp_path / "b" / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert ("| map |" in card and "5 x 16 x 16" in card) or "seg: 5 x 16 x 16, aux: 5 x 4 x 4, top: 5" in card
    again = bf.Architecture.from_json(model.arch.to_json())
    assert list(again.heads) == list(model.arch.heads)


def test_ejected(text: str, tmp_path: Path) -> None:
    assert write_ejected(built(text), tmp_path / "net.py").error < 1e-5
    code = (tmp_path / "net.py").read_text()
    assert "logits_BKHW" in code
    assert "num_classes: int = 5" in code


@pytest.mark.parametrize("format", ["onnx", "export"])
def test_exported(text: str, format: Any, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install 'blockforge[export]'")
    made = export_model(built(text), tmp_path / "net", format, dynamic=("batch", "hw"))
    assert made.outputs == (("logits",) if text == MAP else ("seg", "aux", "top"))
    assert len(made.checks) == 6


def test_compiled_whole(text: str) -> None:
    torch._dynamo.reset()
    model = built(text)
    with torch.no_grad():
        same(torch.compile(model, fullgraph=True, backend="aot_eager")(images()), model(images()))


def test_the_interface_of_timm(text: str) -> None:
    model, x = built(text), images()
    with torch.no_grad():
        last = model.forward_features(x)
        assert last.shape == (2, 16, 4, 4)
        torch.testing.assert_close(model.forward_head(last), main_output(model(x)))
        assert model.forward_head(last, pre_logits=True).shape == (2, 12, 16, 16)
        last, maps = model.forward_intermediates(x)
        assert [m.shape[1] for m in maps] == [8, 16]
        assert [m.shape[1] for m in model.features()(x)] == [8, 16]
    assert isinstance(model.get_classifier(), nn.Linear)
    assert [m.shape[1] for m in bf.build(model.arch, features_only=True)(x)] == [8, 16]


def test_another_classifier(text: str, tmp_path: Path) -> None:
    model = built(text)
    kept = {k: v.clone() for k, v in model.state_dict().items() if "logits" not in k and ".fc." not in k}
    model.reset_classifier(7)
    assert {y.shape[1] for y in by_name(model(images())).values()} == {7}
    bf.save_model(model, tmp_path)
    same(bf.load_model(tmp_path).eval()(images()), model(images()))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in kept.items())
    model.reset_classifier(0)
    assert [y.shape[1] for y in by_name(model(images())).values()] == ([12] if text == MAP else [12, 6, 16])


def test_pooling_is_the_main_heads() -> None:
    with pytest.raises(BlockforgeError, match="has no pooling that 'max' could replace"):
        built(HEADS).reset_classifier(7, "max")
    model = built(f"{BASE}heads: {{top: classifier, seg: {SEG}}}\n")
    model.reset_classifier(7, "max")
    assert model.arch.spec.tree["heads"]["top"] == {"op": "classifier", "pool": "max"}
    with pytest.raises(BlockforgeError, match="gives a mapping of heads by name\n  hint: forward_features"):
        model.reset_classifier(0, "")
    alone = built(MAP)
    alone.reset_classifier(0, "")
    assert shapes(alone) == (16, 4, 4)


def test_heads_that_ask_for_no_classes_are_left_alone() -> None:
    model = built(f"{BASE}heads: {{seg: {SEG}, embed: [global_pool, {{op: linear, dim: 3}}]}}\n")
    before = model.heads.embed.linear.weight
    model.reset_classifier(7)
    assert shapes(model) == {"seg": (7, 16, 16), "embed": (3,)}
    assert model.heads.embed.linear.weight is before
    with pytest.raises(BlockforgeError, match="the head has no 'logits'"):
        built(f"{BASE}heads: {{embed: [global_pool, {{op: linear, dim: 3}}]}}\n").reset_classifier(7)


def test_a_width_of_classes_is_replaced_like_logits() -> None:
    model = built(f"{BASE}head: [{{op: conv, dim: $classes, kernel_size: 3}}]\n")
    model.reset_classifier(7)
    assert shapes(model) == (7, 4, 4)


def test_timm_makes_them(text: str) -> None:
    timm = timm_models.load_timm()
    import blockforge.timm  # noqa: F401

    model = timm.create_model("blockforge", spec=from_text(text).tree, num_classes=3, drop_rate=0.1).eval()
    assert {y.shape[1] for y in by_name(model(images())).values()} == {3}
    wanted = "head.logits" if text == MAP else ("heads.seg.logits", "heads.aux.logits", "heads.top.fc")
    assert model.pretrained_cfg["classifier"] == wanted
    assert [
        m.shape[1] for m in timm.create_model("blockforge", spec=from_text(text).tree, features_only=True)(images())
    ] == [8, 16]


def test_runs_are_told_by_name(text: str) -> None:
    proof = prove(built(text))
    assert proof.output == (1, 5, 16, 16)
    told = "-> seg 1x5x16x16, aux 1x5x4x4, top 1x5 in" if text == HEADS else "-> 1x5x16x16 in"
    assert told in str(proof)


def test_tables_and_pictures(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.yaml"
    file.write_text(text)
    for command in (["show"], ["build"], ["profile", "--seconds", "0.1"], ["check"]):
        assert main([command[0], str(file), *command[1:]]) == 0, command
    shown = capsys.readouterr().out
    assert all(name in shown for name in (["heads.seg", "heads.top"] if text == HEADS else ["head"]))
    for ending in ("svg", "dot", "mmd"):
        engine = ["--engine", "builtin"] if ending == "svg" else []
        assert main(["graph", str(file), "-o", str(tmp_path / f"net.{ending}"), *engine]) == 0


def test_diff_puts_heads_last() -> None:
    found = [c.name for c in changes(bf.compile(from_text(MAP)), bf.compile(from_text(HEADS)))]
    assert found == ["head", "heads.seg", "heads.aux", "heads.top"]


def test_training_wants_classes_of_images() -> None:
    data: Any = type("Data", (), {"name": "pixels", "classes": ("a", "b"), "named": False})
    with pytest.raises(DataError, match=r"heads\.seg of two_stages gives a map, 2x16x16, and each image of pixels"):
        make_model(from_text(HEADS.replace("num_classes: 5\n", "")), data)
    text = f"{BASE.replace('num_classes: 5', '')}heads: {{top: classifier, other: [global_pool, logits]}}\n"
    assert make_model(from_text(text), data).num_classes == 2


def test_looking_for_a_class_wants_one() -> None:
    pytest.importorskip("captum")
    with pytest.raises(AnalysisError, match="gives a map, 5x16x16, and no classes of the image"):
        grad_cam(built(MAP), images(1))
    assert grad_cam(built(f"{BASE}heads: {{top: classifier, seg: {SEG}}}\n"), images(1), target=1).target == 1


def test_classes_of_one_position_are_no_classes_of_several() -> None:
    model = built(f"{BASE}head: [{{op: adaptive_pool, size: 1}}, logits]\n")
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)
    model = built(f"{BASE}head: [{{op: conv, stride: 4, kernel_size: 4}}, logits]\n")
    assert model(images()).shape == (2, 5)
    with pytest.raises(OpError, match="one position where it was built, and 2x2 here"):
        model(torch.randn(1, 3, 64, 64))


# --- the language


def test_one_takes_the_place_of_the_other_in_what_extends(tmp_path: Path) -> None:
    for name, text in (("one", MAP), ("several", HEADS)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "a.yaml").write_text("extends: one.yaml\nheads: {top: classifier}\n")
    (tmp_path / "b.yaml").write_text("extends: several.yaml\nhead: classifier\n")
    (tmp_path / "c.yaml").write_text("extends: several.yaml\nheads: {seg: none, more: classifier}\n")
    trees = {name: bf.load(tmp_path / f"{name}.yaml").tree for name in "abc"}
    assert "head" not in trees["a"]
    assert "heads" not in trees["b"]
    assert list(trees["c"]["heads"]) == ["seg", "aux", "top", "more"]
    assert list(bf.compile(tmp_path / "c.yaml").heads) == ["aux", "top", "more"]


def test_left_out_by_none_or_a_hole() -> None:
    assert list(bf.compile(from_text(HEADS), {"heads.seg": "none"}).heads) == ["aux", "top"]
    space = from_text(
        HEADS.replace(f"aux: {AUX}", "aux: {$choice: [none, [{op: linear, dim: {$int: [2, 4]}}, logits]]}")
    )
    found = bf.compile(space, ask=lambda hole: hole.labels[1] if hole.labels else 3)
    assert len(found.plan.answers) == 2
    assert len(bf.compile(space, ask=lambda hole: hole.labels[0]).heads) == 2


def test_written_out(text: str) -> None:
    arch = bf.compile(from_text(text))
    for other in (bf.expand(from_text(text)), from_text(text).to_yaml()):
        assert bf.compile(from_text(other)).hash == arch.hash
        assert list(bf.compile(from_text(other)).heads) == list(arch.heads)


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        ("", "the key 'head' is missing", "From the last map"),
        ("head: classifier\nheads: {a: classifier}", "head and heads are both given; keep one", "heads are by name"),
        ("heads: {}", "heads name no head", "as in heads: {seg:"),
        ("heads: {op: classifier}", "heads are ops by name; this is one op", "one alone is head"),
        ("heads: [classifier]", "this should be a mapping, not a list", ""),
        ("heads: {a: none}", "every head is none", "every backbone has one"),
        ("heads: {a: }", "there is no value here", "write none"),
        ("heads: {a-b: classifier}", "'a-b' cannot be a name here", "a name is letters"),
        ("heads: {lambda: classifier}", "no head can be called 'lambda'", "Python"),
        ("heads: {training: classifier}", "no head can be called 'training'", "torch's modules"),
        ("heads: {a: clasifier}", "no head named 'clasifier'|there is no op named 'clasifier'", "classifier"),
        ("heads: {a: [{op: conv, groups: 3}]}", "groups 3 do not divide 16|not divisible", ""),
        ("heads: {a: {op: classifier, pol: avg}}", "pol", "pool"),
        ("heads: {a: [{op: conv, dim: $nope}]}", "no let gives .nope", ""),
    ],
)
def test_what_is_wrong_is_told(written: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError, match=message) as found:
        bf.compile(from_text(f"{BASE}{written}\n"))
    assert hint in str(found.value)
    first = found.value.diagnostics[0]
    assert first.loc is not None or "missing" in message
