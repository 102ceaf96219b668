"""Swap: narrower stages, milliseconds that are saved, and processes that share a folder."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small_parent import NET

import blockforge as bf
from blockforge.errors import BudgetError
from blockforge.search import budget as search_budget
from blockforge.swapping import choosing
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.choosing import check_reachable, choose
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.latency import timed
from blockforge.swapping.pairs import Losses
from blockforge.swapping.record import TOGETHER, recorded
from blockforge.swapping.scores import Score, compare, moved
from blockforge.swapping.shared import in_turns
from blockforge.swapping.slots import Alternative, Slot, meet
from blockforge.swapping.statistics import settled
from blockforge.swapping.ties import ties_of
from blockforge.swapping.weights import with_alternatives
from blockforge.swapping.widths import narrower_stages
from blockforge.units import Budget, parse_budget
from blockforge.weights.symmetry import Units


def test_latency_is_saved_where_it_is_spent(network: bf.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the multiply-adds are; what the whole network takes beyond its branches is asked of it."""

    def slow(arch: bf.Architecture, device: str | None) -> float:
        branches = [node for stage in arch.stages for layer in stage.layers for node in layer.branches.values()]
        return 2.0 + sum(1.1 * 3 ** (node.op == "dwconv") for node in branches)

    for module in (choosing, search_budget):
        monkeypatch.setattr(module, "measured_latency", slow)
    found = [
        dataclasses.replace(a, saved={**a.saved, "latency_ms": 3.0 ** (a.slot.op == "dwconv") if a.is_skip else 0.0})
        for a in alternatives_of(network, network.source)
    ]
    losses, whole = Losses([1.0] * len(found), np.zeros((len(found),) * 2)), slow(network, None)
    ties = ties_of(network, found)
    for share in (0.9, 0.7, 0.5):
        budget = parse_budget(f"{share * whole:.3f}ms")
        chosen = [found[i] for i in choose(network, found, losses, "x", budget, ties)]
        assert slow(bf.compile(edited(network.source, chosen)), None) <= share * whole
        assert {a.slot.op for a in chosen if share == 0.9} <= {"dwconv"}
    with pytest.raises(BudgetError, match=r"reaches x: the smallest network has 3.1 ms against 1 ms"):
        check_reachable(network, found, [("x", parse_budget("1ms"))], ties)


def test_alternatives_are_timed_alone(network: bf.Architecture) -> None:
    """What goes saves something; branches of one block and shape are measured once."""
    model = bf.build(network, seed=0).eval()
    found = [a for a in alternatives_of(network, network.source) if a.label in ("nothing", "mlp_ratio 0.5")]
    ms = {(a.slot.name, a.label): a.saved["latency_ms"] for a in timed(model, found, "cpu", False)}
    assert all(saved > 0 for (_, label), saved in ms.items() if label == "nothing")
    assert ms["stages.0.layers.0.conv_mlp", "nothing"] == ms["stages.0.layers.1.conv_mlp", "nothing"]
    assert ms["stages.0.layers.0.conv_mlp", "nothing"] > ms["stages.0.layers.0.conv_mlp", "mlp_ratio 0.5"]


def test_stages_become_narrower(network: bf.Architecture, alternatives: list[Alternative]) -> None:
    """With all that reads and writes them: where nothing stands over the channels, the network computes what it does
    with zeros in the others. What blocks have inside stays as it was."""
    plain = {**NET, "defaults": {"norm": "none"}, "downsample": {"op": "patch_merging", "norm": "none"}}
    arch = bf.compile(written_out({**plain, "head": ["global_pool", "logits"]}))
    model = bf.build(arch, seed=0).double().eval()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    found = list(narrower_stages(arch, arch.source))
    assert [(a.slot.name, a.label) for a in found] == [
        ("stages.0", "dim 12"), ("stages.0", "dim 8"), ("stages.1", "dim 16"), ("stages.1", "dim 12")
    ]  # fmt: skip
    for alternative in found:
        cut = alternative.cut
        assert isinstance(cut, Units)
        units = torch.randperm(cut.number)[: cut.kept].sort()[0].tolist()
        narrow = with_alternatives(model, arch.source, [alternative], {alternative: units}).double()
        assert narrow.arch.macs == arch.macs - alternative.saved["macs"]
        wide = copy.deepcopy(model)
        wide.load_state_dict(cut.alone(model.state_dict(), units))
        torch.testing.assert_close(narrow(x), wide(x), rtol=1e-12, atol=1e-12)
    assert '"mlp_ratio": 3.0' in json.dumps(found[2].branch)
    both = [*alternatives, *narrower_stages(network, network.source)]
    both.sort(key=lambda a: (a.slot.stage, a.slot.layer))
    for least in (0.4, 0.7):
        chosen = choose(
            network,
            both,
            Losses([0.0 if a.slot.is_width else 1.0 for a in both], np.zeros((len(both),) * 2)),
            "x",
            Budget(macs=int(network.macs * least)),
            ties_of(network, both),
        )
        picked = [both[i] for i in chosen]
        assert any(a.slot.is_width for a in picked)
        assert not any(meet(a, b) for a, b in itertools.combinations(picked, 2))
        assert bf.compile(edited(network.source, picked)).macs <= least * network.macs


def test_statistics_follow_narrower_stages() -> None:
    """Where the network's own are those of the images, the narrower network's are too."""
    arch = bf.compile(written_out({**NET, "defaults": {"norm": "batch_norm"}}))
    model = bf.build(arch, seed=0)
    x = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(getattr(m, "running_mean", None), torch.Tensor)):
            norm.momentum = None
        model.train()(x)
        model.eval()
        found = list(narrower_stages(arch, arch.source))
        kept = {a: list(range(a.cut.kept)) for a in found if isinstance(a.cut, Units)}
        new = settled(model, found, kept, [(x, torch.zeros(64))])
        assert [*new] == found
        for alternative in found:
            narrow = with_alternatives(model, arch.source, [alternative], new)
            plain = narrow.eval()(x)
            torch.testing.assert_close(narrow.train()(x), plain, rtol=1e-2, atol=2e-2)


def test_processes_share_the_work(tmp_path: Path) -> None:
    """What another has comes last, when it is given back; each score is computed once, and all of them know it."""
    other = in_turns("abc", tmp_path, "x")
    assert next(other) == "a"
    own = in_turns("abc", tmp_path, "x")
    assert [next(own), next(own)] == ["b", "c"]
    other.close()
    assert list(own) == ["a"]
    found = [Alternative(Slot(0, i, 0, f"stages.0.layers.{i}", "mlp"), "x", None) for i in range(5 * TOGETHER)]
    computed: list[str] = []

    def scoring(alternative: Alternative) -> Score:
        computed.append(alternative.slot.name)
        return Score(len(computed), 0.0, 0.0, None)

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(recorded, found, scoring, tmp_path, {"images": 1}) for _ in range(3)]
        results = [run.result() for run in runs]
    assert sorted(computed) == sorted(a.slot.name for a in found)
    assert results[0] == results[1] == results[2]


def test_pairs_say_what_changes_cost_together() -> None:
    """Answers that move twice as far cost four times as much, not twice; what mends another costs less; and the choice
    knows it. Moves of many images and classes are drawn together."""
    draw = torch.Generator().manual_seed(0)
    own, move = torch.randn(256, 10, generator=draw).log_softmax(1), 0.05 * torch.randn(256, 10, generator=draw)
    moves = [move, move, -move, 0.05 * torch.randn(256, 10, generator=draw)]
    given = [(own + m).log_softmax(1) for m in moves]
    scores = [dataclasses.replace(compare(own, g, None), moved=moved(own, g)) for g in given]
    slots = [Slot(0, i, 0, f"stages.0.layers.{i}.mlp", "mlp") for i in range(4)]
    found = [Alternative(slot, "x", None, saved={"macs": 10}) for slot in slots]
    losses = Losses.of(found, scores)
    for chosen in ([0, 1], [0, 2], [0, 3], [0, 1, 2, 3]):
        joint = compare(own, (own + sum(moves[i] for i in chosen)).log_softmax(1), None).kl
        assert losses.total(chosen) == pytest.approx(joint, abs=0.05 * scores[0].kl + 0.05 * joint)
    assert losses.best(found, {"macs": 20}) in ([0, 2], [1, 2])
    wide, kept = torch.randn(300, 64, generator=draw).log_softmax(1), 0.05 * torch.randn(300, 64, generator=draw)
    far = [
        dataclasses.replace(compare(wide, g, None), moved=moved(wide, g)) for g in ((wide + kept).log_softmax(1),) * 2
    ]
    assert Losses.of(found[:2], far).total([0, 1]) == pytest.approx(4 * far[0].kl, rel=0.1)
    without = Losses.of(found, [dataclasses.replace(s, moved="") for s in scores])
    assert without.total([0, 1]) == scores[0].kl + scores[1].kl
