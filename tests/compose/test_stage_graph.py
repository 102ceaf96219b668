"""Stages that form a graph: what they read, what it costs, and what is told where it does not fit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from streams import NETWORKS, SMOOTH, UP, Tree, exchange, network, unet

import blockforge as bf
from blockforge.eject import write_ejected
from blockforge.eject.check import TOLERANCE
from blockforge.search.space.fit import fit
from blockforge.search.space.locate import locate
from blockforge.search.space.size import count
from blockforge.search.space.widths import Widths
from blockforge.testing import check_spec


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_its_graph_says(name: str) -> None:
    check_spec(bf.compile(NETWORKS[name]()))


def test_sources_are_read_through_their_ops_and_joined() -> None:
    nodes = bf.compile(unet()).nodes
    assert nodes["stages.3.from_0"].inputs == ("stages.2.layers.0.mlp",)
    assert nodes["stages.3.join"].inputs == ("stages.3.from_0", "stages.1.layers.1.mlp")
    assert nodes["stages.4.from_0"].inputs == ("stages.3.layers.0.conv_bn",)
    assert [str(nodes[n].out_shape) for n in ("stages.3.join", "stages.4.join")] == ["40x8x8", "24x16x16"]


def test_reductions_come_from_the_shapes() -> None:
    tree = unet(input={"size": 36})  # 18, 9 and 5: strides that do not divide
    for stage in tree["stages"][3:]:
        stage["from"].reverse()
        stage["join"] = {"op": "concat", "resize": "bilinear"}
    model = bf.build(tree)
    assert model.feature_info.reduction() == [2, 4, 8, 4, 2]


def test_a_stage_with_sources_takes_no_downsample_and_no_norm_of_the_spec() -> None:
    nodes = bf.compile(unet(stage_norm="layer_norm")).nodes
    assert [n for n in nodes if n.endswith((".norm", ".downsample"))] == [
        "stages.0.norm", "stages.1.downsample", "stages.1.norm", "stages.2.downsample", "stages.2.norm",
    ]  # fmt: skip


def test_rates_rise_with_the_layers_on_the_way() -> None:
    rates = bf.compile(exchange()).plan.drop_path
    assert rates[:4] == pytest.approx((0, 0.2 / 3, 0.4 / 3, 0.2))
    assert rates[4:6] == pytest.approx((0.2 / 3, 0.4 / 3))  # behind stage 0, and behind that


def test_names_and_the_order_of_a_sum_leave_no_trace() -> None:
    tree = exchange()
    other = copy.deepcopy(tree)
    for stage in other["stages"][3:]:
        stage["from"] = _renamed(stage["from"])
        stage["name"] += "_x"
    other["stages"][5]["from"].reverse()
    arch, same = bf.compile(tree), bf.compile(other)
    assert arch.hash == same.hash
    other["stages"][7]["from"].reverse()
    assert bf.compile(other).hash != arch.hash  # a concatenation has an order


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(v) for v in value]
    if isinstance(value, dict):
        return {**value, "from": _renamed(value["from"])}
    return f"{value}_x" if isinstance(value, str) else value


def test_features_only_runs_what_leads_to_them() -> None:
    arch = bf.compile(exchange())
    model = bf.build(arch, features_only=True, out_indices=(1, 4))
    assert not [n for n, _ in model.named_modules() if n.startswith(("stages.2", "stages.5", "stages.6", "head"))]
    x = torch.randn(1, 3, 32, 32)
    whole = bf.build(arch).eval()
    whole.load_state_dict({**whole.state_dict(), **model.state_dict()})
    with torch.no_grad():
        for got, wanted in zip(
            model.eval()(x), whole.forward_intermediates(x, [1, 4], intermediates_only=True), strict=True
        ):
            torch.testing.assert_close(got, wanted)


def test_features_by_name() -> None:
    arch = bf.compile(unet(features=[0, "up1", "up0"]))
    assert arch.features == (0, 3, 4)
    assert [tuple(m.shape[1:]) for m in bf.build(arch, features_only=True)(torch.randn(2, 3, 32, 32))] == [
        (8, 16, 16), (16, 8, 8), (8, 16, 16),
    ]  # fmt: skip


def test_a_classifier_gives_the_maps_that_it_has() -> None:
    """It is built without stages that only `features` name."""
    aside = {"name": "up", "dim": 24, "from": {"from": 2, "op": UP}, "layers": ["relu"]}
    arch = bf.compile(network(aside, features=[0, 2, "up"], head={"from": 2, "op": ["global_pool", "logits"]}))
    model, x = bf.build(arch).eval(), torch.randn(1, 3, 32, 32)
    assert [m.shape[1] for m in model.forward_intermediates(x, intermediates_only=True)] == [8, 24]
    assert model.feature_info.out_indices == (0, 2)
    assert bf.build(arch, features_only=True).feature_info.out_indices == (0, 2, 3)
    with pytest.raises(bf.BlockforgeError, match=r"without stages.3.from_0\n  hint: features_only=True builds"):
        model.forward_intermediates(x, ["up"])


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_and_pickles_give_the_same(name: str) -> None:
    model = bf.build(NETWORKS[name](), seed=1).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other(x), wanted)


def test_stages_are_added_to_a_spec_that_is_extended(tmp_path: Any) -> None:
    (tmp_path / "base.yaml").write_text(bf.load(network()).to_yaml())
    (tmp_path / "unet.yaml").write_text(
        "extends: base.yaml\nname: unet\nuse: [std]\n"
        "define: {up: {op: resize, scale: 2}, smooth: {op: conv_bn, kernel_size: 3}}\nstages:\n"
        "  4: {name: up0, dim: 8, from: [{from: up1, op: up}, 0], join: concat, layers: [smooth]}\n"
        "  3: {name: up1, dim: 16, from: [{from: 2, op: up}, 1], join: concat, layers: [smooth]}\n"
    )
    assert bf.compile(str(tmp_path / "unet.yaml")).hash == bf.compile(unet()).hash


def test_another_size_is_refused_in_words_where_maps_do_not_meet() -> None:
    model = bf.build(unet()).eval()
    with pytest.raises(bf.BlockforgeError, match="maps of 10x10 and 9x9 do not meet at this size of the image"):
        model(torch.randn(1, 3, 36, 36))


@pytest.mark.parametrize("name", NETWORKS)
def test_ejected_drawn_and_deployed(name: str, tmp_path: Path) -> None:
    model = bf.build(NETWORKS[name](), seed=0).eval()
    assert write_ejected(model, tmp_path / "net.py").error <= TOLERANCE
    for picture in (bf.to_svg, bf.to_dot, bf.to_mermaid):
        assert picture(model.arch)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(bf.deploy(model)(x), model(x), rtol=1e-4, atol=1e-5)


def test_names_choose_maps() -> None:
    arch = bf.compile(unet())
    assert bf.build(arch, out_indices=("up1", 0)).out_indices == (3, 0)
    with pytest.raises(bf.BlockforgeError, match="no stage is called 'up2'\n  hint: did you mean 'up"):
        bf.build(arch, out_indices=("up2",))


def test_widths_that_meet_in_a_sum_are_one() -> None:
    tree = exchange()
    widths = Widths(bf.compile(tree))
    assert widths.groups == [[-1, 0, 3, 5], [1, 4, 6], [2], [7]]
    fitted = fit(tree, "4MMACs")
    assert 0.97 <= fitted.macs / 4e6 <= 1


def test_a_space_may_choose_what_is_read() -> None:
    tree = unet()
    tree["stages"][4]["from"] = [{"$choice": ["up1", 2]}, 0]
    tree["stages"][4]["join"] = {"op": {"$choice": ["concat", "mul"]}, "resize": "nearest"}
    tree["features"] = [3]
    space = bf.load(tree)
    assert count(space).combinations == 4
    tree["stages"][4]["from"][0], tree["stages"][4]["join"]["op"] = 2, "concat"
    assert locate(space, tree) == {"stages.4.from.0": 2, "stages.4.join.op": "concat"}


MISTAKES: dict[str, tuple[Tree, str, str]] = {
    "unknown": ({"from": "upp"}, r"no stage is called 'upp'", "did you mean 'up'? names here: input, stem, up"),
    "itself": ({"from": 4}, r"stage 4 reads itself", "stages 0 to 3"),
    "later": ({"from": "last"}, r"'last' stands behind what reads it", "names here: input, stem, up"),
    "number": ({"from": 9}, r"there is no stage 9", "stages 0 to 3"),
    "twice": ({"name": "up", "from": 3}, r"stage 3 has the name 'up' too", "another name"),
    "taken": ({"name": "stem", "from": 3}, r"'stem' is the name of another map", "another name"),
    "kind": ({"from": 1.5}, r"this should be the name or number of a stage, not 1.5", "an earlier stage"),
    "key": ({"from": [{"from": 3, "opp": "relu"}]}, r"no key 'opp' here", "did you mean 'op'?"),
    "empty": ({"from": []}, r"this list should have at least 1 item", "from:"),
    "nothing": ({"from": 3}, r"stage 4 has neither layers nor a downsample", "leave it out"),
    "sizes": ({"from": [0, 1], "dim": 8}, r"stage 4: maps of 8x16x16 and 16x8x8 do not meet", "resize: bilinear"),
    "widths": ({"from": [3, 1], "dim": 8}, r"stage 4: maps of 16x8x8 and 8x8x8 differ", "join them by concat"),
    "promise": ({"from": [3, 1], "dim": 8, "join": "concat"}, r"24 channels together, the stage has dim 8", "an op on"),
    "op": ({"from": {"from": 1, "op": "bach_norm"}}, r"there is no op named 'bach_norm'", "did you mean 'batch_norm'"),
    "join": ({"from": [3, 1], "join": "summ"}, r"no join or aggregator named 'summ'", "did you mean 'sum'"),
    "alone": ({"from": 3, "join": {"op": "sum", "weights": [2]}, "layers": ["relu"]}, r"a single map", "an op:"),
    "asked": ({"from": [3, 3], "join": {"op": "sum", "dim": 9}}, r"'sum' gives 8 channels, not 9", "any width"),
    "unread": ({"from": {"from": 1, "op": UP}}, r"nobody reads stage 3 'up'", "leave it out"),
    "edge": ({"from": {"from": 1, "op": UP}, "dim": 8}, r"the op gives 16 channels, its stage has dim 8", "dim: $out"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake: str) -> None:
    stage, message, hint = MISTAKES[mistake]
    up = {"name": "up", "dim": 8, "from": {"from": 2, "op": UP}, "layers": [SMOOTH]}
    read = [4] if mistake == "unread" else [3, 4]
    last = {"name": "last", "from": read, "join": {"op": "concat", "resize": "nearest"}, "layers": [SMOOTH]}
    with pytest.raises(bf.SpecError, match=message) as error:
        bf.compile(network(up, stage, last))
    assert hint in str(error.value)
    assert len(error.value.diagnostics) == 1


def test_maps_that_do_not_meet_are_all_shown() -> None:
    reading = {"name": "n", "from": [{"from": 0, "op": UP}, 1, "stem"], "layers": ["relu"]}
    with pytest.raises(bf.SpecError) as error:
        bf.compile(network(reading, features=[2]))
    told = [text for text, _ in error.value.diagnostics[0].related]
    assert told == ["the stem gives 8x16x16", "'resize' gives 8x32x32", "stage 1 gives 16x8x8"]
