"""Heads that read stages by `from` and `join`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from heads import BASE, SEG, built, images, same, shapes

import blockforge as bf
from blockforge.compiler.lowering.outputs import main_output
from blockforge.eject.check import write_ejected
from blockforge.errors import BlockforgeError, SpecError
from blockforge.integrations.pretrained_cfg import pretrained_cfg
from blockforge.search.space.locate import locate
from blockforge.search.space.size import count
from blockforge.spec import fill, from_text
from blockforge.testing import check_spec
from blockforge.testing.measure import randomise
from blockforge.testing.models import check_deployed

UP = "{name: up, dim: 12, from: [{from: 1, op: {op: resize, scale: 2}}, 0], join: concat"
READING = f"""{BASE}  - {UP}, layers: [{{op: conv, dim: $out}}]}}
heads:
  seg: {{from: up, op: [layer_norm, logits, {{op: resize, scale: 4}}]}}
  aux: {{from: 0, op: [{{op: conv, dim: 6, kernel_size: 3}}, relu, logits]}}
  mixed: {{from: [1, {{from: 0, op: {{op: max_pool, kernel_size: 2}}}}], join: concat, op: classifier}}
  votes: {{from: [{{from: 1, op: [global_pool, logits]}}, {{from: 0, op: [global_pool, logits]}}], join: mean}}
"""
ANSWERS = f"""{BASE}head:
  from: [{{from: 1, op: [layer_norm, global_pool, logits]}}, {{from: 0, op: [layer_norm, global_pool, logits]}}]
  join: mean
"""


def test_heads_read_stages() -> None:
    assert shapes(built(READING)) == {"seg": (5, 32, 32), "aux": (5, 8, 8), "mixed": (5,), "votes": (5,)}
    nodes = bf.compile(from_text(READING)).nodes
    assert nodes["heads.aux"].inputs == ("stages.0.layers.0.conv_mlp",)
    assert nodes["heads.mixed.op"].inputs == ("heads.mixed.join",)
    assert {n for n, node in nodes.items() if node.site.output == "votes"} == {
        "heads.votes.from_0", "heads.votes.from_1", "heads.votes.join", "heads.votes.op",
    }  # fmt: skip


@pytest.mark.parametrize("text", [READING, ANSWERS], ids=["reading", "answers"])
def test_networks_with_heads_that_read_keep_every_law(text: str, tmp_path: Path) -> None:
    arch = bf.compile(from_text(text))
    model = randomise(check_spec(arch)).eval()
    check_deployed(model)
    assert write_ejected(model, tmp_path / "net.py").error < 1e-5
    for other in (bf.expand(from_text(text)), from_text(text).to_yaml()):
        assert bf.compile(from_text(other)).hash == arch.hash
    assert bf.Architecture.from_json(arch.to_json()).hash == arch.hash
    bf.save_model(model, tmp_path / "saved")
    with torch.no_grad():
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), bf.load_model(tmp_path / "saved")):
            same(other.eval()(images()), model(images()))
        given = model.forward_features(images())
        widths = [m.shape[1] for m in given] if isinstance(given, list) else given.shape[1]
        assert widths == (12 if text == READING else [8, 16])
        torch.testing.assert_close(model.forward_head(given), main_output(model(images())))
        maps = model.forward_intermediates(images(), intermediates_only=True)
        assert len(maps) == len(arch.stages)
    assert model.num_features == (12 if text == READING else 24)


def test_classifiers_on_edges_are_replaced() -> None:
    model = built(ANSWERS)
    kept = {k: v.clone() for k, v in model.state_dict().items() if "logits" not in k}
    assert pretrained_cfg(model.arch)["classifier"] == ("head.from_1.logits", "head.from_0.logits")
    model.reset_classifier(7)
    assert shapes(model) == (7,)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in kept.items())
    with pytest.raises(BlockforgeError, match="has its classifiers before its join\n  hint: forward_features"):
        model.forward_head(model.forward_features(images()), pre_logits=True)
    with pytest.raises(BlockforgeError, match="has a head of several maps"):
        model.reset_classifier(0, "")
    with pytest.raises(SpecError, match=r"the head: maps of .* differ in their widths"):
        model.reset_classifier(0)
    assert shapes(model) == (7,)
    other = built(READING)
    other.reset_classifier(3)
    assert {y.shape[1] for y in other(images()).values()} == {3}


def test_one_source_without_an_op_is_as_the_stage_before() -> None:
    plain, said = (bf.compile(from_text(f"{BASE}head: {head}\n")) for head in (SEG, f"{{from: 1, op: {SEG}}}"))
    assert plain.hash == said.hash
    assert list(plain.nodes) == list(said.nodes)


def test_pooling_of_a_head_that_reads() -> None:
    model = built(f"{BASE}head: {{from: 1, op: classifier}}\n")
    model.reset_classifier(7, "max")
    assert model.arch.spec.tree["head"] == {"from": 1, "op": {"op": "classifier", "pool": "max"}}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("{from: 7, op: logits}", "there is no stage 7"),
        ("{from: nosuch, op: logits}", "no stage is called 'nosuch'"),
        ("{from: [0, 1], op: logits}", "the head: maps of .* do not meet"),
        ("{from: [0, 1], join: nosuch, op: logits}", "nosuch"),
        ("{from: 1, op: classifier, pool: max}", "there is no key 'pool' here"),
        ("{join: sum, op: logits}", "'logits' has no parameter 'join'|there is no key 'join' here"),
        ("{join: sum, op: [logits]}", "join is for what from names, and there is no from"),
        ("{norm: none}", "the key 'op' is missing"),
        ("{from: [], op: logits}", "at least 1 item"),
        ("{from: {from: 1, op: nosuch}, op: logits}", "nosuch"),
        ("{from: 0, op: logits}", "nobody reads stage 1"),
    ],
)
def test_what_is_wrong_with_what_heads_read(head: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as found:
        bf.compile(from_text(f"{BASE}head: {head}\n"))
    assert all(d.loc is not None for d in found.value.diagnostics)


def test_holes_in_what_heads_read() -> None:
    narrow = "[global_pool, {op: linear, dim: {$int: [2, 4]}}, logits]"
    pooled = "{from: 0, op: {op: max_pool, kernel_size: 2}}"
    space = from_text(f"{BASE}head: {{from: [{{$choice: [1]}}, {pooled}], join: concat, op: {narrow}}}\n")
    found = bf.compile(space, ask=lambda hole: hole.labels[0] if hole.labels else 3)
    assert len(found.plan.answers) == 2
    assert locate(space, fill(space, found.plan.answers)) == dict(found.plan.answers)
    assert count(space).combinations == 3


def test_a_join_without_from_is_the_ops_own() -> None:
    op = "{op: parallel, join: sum, of: [[global_pool, logits], [max_pool, global_pool, logits]]}"
    alone, listed = (bf.compile(from_text(f"{BASE}head: {head}\n")) for head in (op, f"[{op}]"))
    assert alone.hash == listed.hash
    assert bf.compile(from_text(bf.load(from_text(f"{BASE}head: {op}\n")).to_yaml())).hash == alone.hash
