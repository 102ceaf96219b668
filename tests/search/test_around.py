"""The neighbourhood of a spec as a space: the spec is in it, what is drawn is a network or refused, costs are exact."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import SearchError, SpecError
from blockforge.search.space.around import around
from blockforge.search.space.load import draw, values
from blockforge.search.space.locate import locate
from blockforge.spec import Spec, fill, from_text, holes
from blockforge.testing.models import check_costs

NARROW = Path(__file__).parents[2] / "specs" / "narrow"
COMPOSED: dict[str, Any] = {
    "blockforge": 1, "name": "composed", "input": {"size": 32}, "num_classes": 10, "let": {"w": 16},
    "define": {"wide": {
        "params": {"ratio": 2, "kernel_size": 5},
        "body": [{"op": "linear", "dim": "$(ratio * in)"}, {"op": "dwconv", "kernel_size": "$kernel_size"}, "silu",
                 {"op": "linear", "dim": "$out"}],
    }},
    "blocks": {"a": [{"op": "wide"}, {"op": "mlp", "mlp_ratio": 2}],
               "b": [{"op": ["dwconv", "gelu", {"op": "linear", "dim": "$out"}]}]},
    "defaults": {"norm": "layer_norm"}, "stem": {"op": "conv_stem"}, "downsample": {"op": "conv_downsample"},
    "stages": [{"dim": "$w", "depth": 2, "layers": "a"}, {"dim": "$(2 * w)", "depth": 4, "layers": "(a b)*"}],
    "head": {"op": "classifier"},
}  # fmt: skip
STREAMS: dict[str, Any] = {
    "blockforge": 1, "name": "streams", "input": {"size": 32}, "num_classes": 10, "stem": {"op": "conv_stem"},
    "blocks": {"a": [{"op": "dwconv", "norm": "layer_norm"}]},
    "stages": [
        {"name": "left", "dim": 16, "depth": 2, "layers": "a"},
        {"name": "right", "from": "stem", "dim": 16, "depth": 1, "layers": "a"},
        {"from": ["left", "right"], "join": "sum", "dim": 16, "depth": 1, "layers": "a"},
    ],
    "head": {"op": "classifier"},
}  # fmt: skip
SPECS: dict[str, Any] = {
    "composed": COMPOSED, "streams": STREAMS,
    **{name: str(NARROW / f"{name}.yaml") for name in ("convnext", "smt", "sparx_mamba")},
}  # fmt: skip


@functools.cache
def space_of(name: str) -> Spec:
    return around(SPECS.get(name, name))


def drawn(space: Spec, number: int) -> list[bf.Architecture]:
    """The networks of so many draws; whatever else comes of one must be a SpecError."""
    rng, found = random.Random(0), []
    for _ in range(number):
        try:
            found.append(bf.compile(space, ask=lambda hole: draw(hole, rng)))
        except SpecError:  # refused, with a reason
            continue
    return found


def check_neighbourhood(name: str, draws: int, counted: int) -> None:
    space, source = space_of(name), SPECS.get(name, name)
    assert from_text(space.to_yaml()).tree == space.tree
    answers = locate(space, source)
    assert bf.compile(fill(space, answers)).hash == bf.compile(source).hash
    networks = drawn(space, draws)
    assert networks, "all draws were refused"
    assert len({arch.hash for arch in networks}) > 1
    for arch in networks[:counted]:
        check_costs(bf.build(arch))


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_lies_in_its_neighbourhood(name: str) -> None:
    check_neighbourhood(name, draws=30, counted=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", bf.list_specs())
def test_every_spec_of_the_zoo_lies_in_its_neighbourhood(name: str) -> None:
    check_neighbourhood(name, draws=200, counted=3)


def test_what_may_change_is_found_by_its_type() -> None:
    found = holes(space_of("smt"))
    ends = {name.rpartition(".")[2] for name in found}
    assert {"depth", "dim", "layers", "num_heads", "mlp_ratio", "kernel_size"} <= ends
    assert not {"eps", "init", "act"} & ends
    assert {"(sam_s2 msa)*"} < set(found["stages.2.layers"].labels)
    assert {"sam", "attention", "dwconv", "ss2d"} <= set(found["blocks.sam_s0.0"].labels)
    strips = holes(around(str(NARROW / "strip_mlp.yaml")))
    assert any(name.endswith(".strip") for name in strips)
    assert {"stages.2.connect.stride", "stages.2.connect.window"} <= holes(space_of("sparx_mamba")).keys()


def test_a_name_of_a_block_and_of_a_definition_means_the_definition() -> None:
    blocks = {**COMPOSED["blocks"], "a": [{"op": "dwconv"}, "attention"]}
    define = {**COMPOSED["define"], "attention": [{"op": "linear", "dim": "$out"}]}
    found = holes(around({**COMPOSED, "blocks": blocks, "define": define}))
    labels = next(hole.labels for name, hole in found.items() if name.startswith("blocks.a") and hole.labels)
    assert "dwconv" in labels
    assert "attention" not in labels


def test_widths_stay_tied() -> None:
    composed, streams = space_of("composed"), space_of("streams")
    assert [stage["dim"] for stage in composed.tree["stages"]] == ["$width_0", "$(2 * width_0)"]
    assert {stage["dim"] for stage in streams.tree["stages"]} == {"$width_0"}
    for arch in drawn(composed, 20):
        assert arch.plan.stages[1].dim == 2 * (arch.plan.stages[0].dim or 0)
    assert {"blocks.a_s0.0.ratio", "blocks.a_s0.0.kernel_size"} <= holes(composed).keys()


def test_every_value_fits_beside_the_rest_as_it_was() -> None:
    space = space_of("composed")
    own, start = locate(space, COMPOSED), bf.compile(COMPOSED)
    for hole in holes(space).values():
        for label in values(hole):
            changed = bf.compile(space, ask=lambda h, n=hole.name, v=label: v if h.name == n else own[h.name])
            assert 0.5 <= changed.macs / start.macs <= 2
            assert [(s.height, s.width) for s in changed.stage_maps()] == [(8, 8), (4, 4)]


def test_a_search_around_a_spec_begins_with_it_and_stays_at_its_cost() -> None:
    result = bf.search(around=COMPOSED, objective="params", trials=4, sampler="random")
    start, found = bf.compile(COMPOSED), [trial for trial in result.trials if trial.values]
    assert len(found) == 4
    assert found[0].hash == start.hash
    assert all(0.97 <= (trial.macs or 0) / start.macs <= 1 for trial in found)


def test_mistakes_are_told() -> None:
    with pytest.raises(SearchError, match="has holes: it is a space"):
        around(space_of("composed"))
    with pytest.raises(SearchError, match="space and around exclude one another"):
        bf.search("tiny", around=COMPOSED)
    with pytest.raises(SpecError, match="no spec named 'smt_q'"):
        around("smt_q")


def test_the_command_prints_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "--around", SPECS["convnext"]]) == 0
    assert from_text(capsys.readouterr().out).tree == space_of("convnext").tree
    assert main(["space", "tiny", "--around", "smt_t"]) == 2
