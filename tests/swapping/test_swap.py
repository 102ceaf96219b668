"""A trained network brought to budgets: which units there are, what is chosen, and spec and weights together."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_parent import NET

import blockforge as bf
from blockforge.blocks.base import Placed, Shape
from blockforge.blocks.registry import make
from blockforge.cli import main
from blockforge.errors import BlockforgeError, BudgetError, RunError
from blockforge.swapping import scored as scoring
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.lessons import seen_by
from blockforge.swapping.slots import Alternative, Slot
from blockforge.swapping.solve import best
from blockforge.swapping.statistics import settled
from blockforge.swapping.targets import targets
from blockforge.swapping.ties import ties_of
from blockforge.swapping.weights import new_branch, standing_in, with_alternatives
from blockforge.weights.symmetry import Middle, Units, cut_between


@pytest.mark.parametrize(
    ("op", "change", "number", "kept"),
    [
        ({"op": "mlp", "mlp_ratio": 2}, {"mlp_ratio": 1}, 48, 24),
        ({"op": "conv_mlp", "mlp_ratio": 2}, {"mlp_ratio": 0.5}, 48, 12),
        ({"op": "gated_mlp", "mlp_ratio": 2}, {"mlp_ratio": 1}, 48, 24),
        ({"op": "attention", "num_heads": 4}, {"num_heads": 3, "head_dim": 6}, 4, 3),
        ({"op": "attention", "num_heads": 3, "local_conv": 3}, {"num_heads": 1, "head_dim": 8}, 3, 1),
        ({"op": "ss2d", "expand": 2}, {"expand": 1}, 48, 24),
        ({"op": "mbconv", "expand": 4}, {"expand": 2}, 96, 48),
    ],
)
def test_units_are_found_and_kept_whole(op: dict[str, Any], change: dict[str, Any], number: int, kept: int) -> None:
    """Where the entries of other units are zero, the narrower block computes the same."""
    place = (Shape(6, 6, 24),)
    wide, narrow = (Placed(_made({**op, **more}), place) for more in ({}, change))
    units = cut_between(wide, narrow, op.get("num_heads"))
    assert isinstance(units, Units)
    assert (units.number, units.kept) == (number, kept)


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ({"op": "dwconv", "kernel_size": 7}, {"kernel_size": 3}),
        ({"op": "sam"}, {"mixed": False}),
        ({"op": "strip_mixing", "patch": 2, "strip": 3}, {"strip": 1}),
    ],
)
def test_smaller_kernels_are_the_middle_of_large_ones(op: dict[str, Any], change: dict[str, Any]) -> None:
    """Places of a kernel differ: none of them may stand for another, and no importance decides."""
    wide, narrow = (Placed(_made({**op, **more}), (Shape(8, 8, 16),)) for more in ({}, change))
    cut = cut_between(wide, narrow)
    assert isinstance(cut, Middle)
    assert all(before > 0 for _, _, before, _ in cut.axes)


def test_what_nobody_can_cut_stays() -> None:
    """The window of an attention decides which biases there are; those of a smaller one are others."""
    windows = ({"op": "attention", "num_heads": 2, "window": w, "rel_pos_bias": True} for w in (4, 2))
    wide, narrow = (Placed(_made(made), (Shape(8, 8, 8),)) for made in windows)
    assert cut_between(wide, narrow) is None


def test_composed_blocks_become_thinner(network: bf.Architecture) -> None:
    """By a number in them, or something computed; their parts' norms go along. What they add may go."""
    define = {
        "lite": {
            "params": {"mid": "required", "kernel_size": 3},
            "body": [
                {"op": "conv_bn", "dim": "$mid"},
                {"op": "dwconv_bn", "kernel_size": "$kernel_size"},
                {"op": "conv_bn", "dim": "$out", "act": "none"},
            ],
        }
    }
    block = [{"op": "lite", "mid": "$(6 * in)", "kernel_size": 5, "norm": "none", "skip": "$(in == out)"}]
    written = [{"op": [{"op": "linear", "dim": 48}, "gelu", {"op": "linear", "dim": "$out"}]}]
    arch = bf.compile(
        written_out({**NET, "use": ["std"], "define": define, "blocks": {"conv": block, "attn": written}})
    )
    model = bf.build(arch, seed=0).double().eval()
    found = list(alternatives_of(arch, arch.source))
    labels = {
        name: [a.label for a in found if a.slot.name.startswith(name)]
        for name in ("stages.0.layers.0", "stages.1.layers.0")
    }
    assert labels["stages.0.layers.0"] == ["mid 75%", "mid 50%", "mid 25%", "kernel_size 3", "kernel_size 1", "nothing"]
    assert labels["stages.1.layers.0"] == ["op.0.dim 36", "op.0.dim 24", "op.0.dim 12", "nothing"]
    picked = [found[1], found[9], next(a for a in found if a.slot.name.startswith("stages.1") and a.cut is not None)]
    kept = {a: list(range(a.cut.kept)) for a in picked if isinstance(a.cut, Units)}
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    other = with_alternatives(model, arch.source, picked, kept).double().eval()
    with torch.inference_mode(), contextlib.ExitStack() as stack:
        alone = other(x)
        for alternative in picked:
            stack.enter_context(standing_in(model, alternative, kept))
        torch.testing.assert_close(alone, model(x), rtol=1e-12, atol=1e-12)


def test_a_network_with_alternatives_computes_what_they_do_in_place(
    network: bf.Architecture, alternatives: list[Alternative]
) -> None:
    """Thinner, left out, and a layer gone whole: names of tensors move, outputs are the same."""
    model = bf.build(network, seed=0).double().eval()
    kept = {a: list(range(a.cut.kept)) for a in alternatives if isinstance(a.cut, Units)}
    picked = {
        ("stages.0.layers.0.dwconv", "nothing"),
        ("stages.0.layers.0.conv_mlp", "nothing"),
        ("stages.0.layers.1.conv_mlp", "mlp_ratio 1"),
        ("stages.1.layers.0.attention", "num_heads 1, head_dim 12"),
        ("stages.1.layers.2.attention", "nothing"),
    }
    chosen = [a for a in alternatives if (a.slot.name, a.label) in picked]
    assert len(chosen) == len(picked)
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    other = with_alternatives(model, network.source, chosen, kept).double().eval()
    with torch.inference_mode(), contextlib.ExitStack() as stack:
        alone = other(x)
        for alternative in chosen:
            stack.enter_context(standing_in(model, alternative, kept))
        torch.testing.assert_close(alone, model(x), rtol=1e-12, atol=1e-12)
    for cost in ("macs", "params"):
        assert getattr(network, cost) - getattr(other.arch, cost) == sum(a.saved[cost] for a in chosen)
    assert [len(stage.layers) for stage in other.arch.stages] == [1, 3]


def test_a_layer_that_others_read_stays() -> None:
    connected = {**NET["stages"][1], "connect": {"rule": "dense", "aggregate": "concat"}}
    arch = bf.compile(written_out({**NET, "stages": [NET["stages"][0], connected]}))
    found = list(alternatives_of(arch, arch.source))
    ties = ties_of(arch, found)
    chosen = best(found, [-float(a.saved["macs"]) for a in found], {}, ties)
    assert chosen is not None
    smallest = bf.compile(edited(arch.source, [found[i] for i in chosen]))
    assert [len(stage.layers) for stage in smallest.stages] == [1, 3]


def test_the_solver_finds_the_best_combination() -> None:
    generator = torch.Generator().manual_seed(0)
    slots = [Slot(0, i, 0, f"stages.0.layers.{i}.mlp", "mlp") for i in range(5)]
    draws = torch.rand(15, 2, generator=generator).tolist()
    saved, costs = [int(1000 * share) for share, _ in draws], [cost for _, cost in draws]
    found = [Alternative(slots[i // 3], str(i), None, saved={"macs": macs}) for i, macs in enumerate(saved)]
    choices = itertools.product(*[[None, *range(3 * s, 3 * s + 3)] for s in range(5)])
    all_picks = [[i for i in choice if i is not None] for choice in choices]
    for least in (500, 1500, 2500):
        able = [sum(costs[i] for i in picks) for picks in all_picks if sum(saved[i] for i in picks) >= least]
        chosen = best(found, costs, {"macs": least})
        assert (chosen is None) == (not able)
        if chosen is not None:
            assert sum(found[i].saved["macs"] for i in chosen) >= least
            assert sum(costs[i] for i in chosen) == pytest.approx(min(able))


def test_statistics_of_norms_follow_what_is_thinner() -> None:
    """Where the network's own are those of the images, the thinner branch's are too; others keep theirs."""
    blocks = {"conv": [{"op": "mbconv", "expand": 4, "kernel_size": 5, "norm": "none"}], "attn": NET["blocks"]["attn"]}
    arch = bf.compile(written_out({**NET, "blocks": blocks}))
    model = bf.build(arch, seed=0)
    x = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model.train()(x)
    model.eval()
    found = [a for a in alternatives_of(arch, arch.source) if a.slot.name.startswith(("stages.0.layers.0", "stages.1"))]
    kept = {a: list(range(a.cut.kept)) for a in found if isinstance(a.cut, Units)}
    new = settled(model, found, kept, [(x, torch.zeros(64))])
    assert {a.label for a in new} >= {"expand 3", "expand 2", "expand 1", "kernel_size 3", "kernel_size 1"}
    for alternative, tensors in new.items():
        if alternative.slot.stage:
            continue
        branch = new_branch(model, alternative)
        branch.load_state_dict(tensors)
        read = seen_by(model, {alternative.slot.name}, x)[alternative.slot.name][0]
        with torch.no_grad():
            plain = branch.eval()(*read)
            torch.testing.assert_close(branch.train()(*read), plain, rtol=1e-2, atol=2e-2)


def test_nobody_sees_what_the_solver_says(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written past Python, as HiGHS does now and then."""
    import scipy.optimize

    def milp(*args: Any, **more: Any) -> Any:
        os.write(1, b"HighsMipSolverData::\n")
        return real(*args, **more)

    real = scipy.optimize.milp
    monkeypatch.setattr(scipy.optimize, "milp", milp)
    found = [Alternative(Slot(0, 0, 0, "a", "mlp"), "x", None, saved={"macs": 2})]
    assert best(found, [0.0], {"macs": 1}) == [0]
    os.write(1, b"ours\n")
    assert capfd.readouterr() == ("ours\n", "")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Networks within their budgets that load again; a second run scores nothing anew; other images are refused."""
    model = bf.build(NET, seed=0)
    bf.save_model(model, tmp_path / "parent")
    run = ["swap", str(tmp_path / "parent/spec.yaml"), "--weights", str(tmp_path / "parent/model.safetensors")]
    run += ["--data", "digits", "--images", "32", "--out", str(tmp_path / "out"), "--budget", "70%", "--budget"]
    assert main([*run, "40%"]) == 0
    assert "left out" in capsys.readouterr().out
    for share in (70, 40):
        small = bf.load_model(tmp_path / f"out/{share}pct")
        assert small.arch.macs <= model.arch.macs * share / 100
        assert small(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    monkeypatch.setattr(scoring, "score", None)
    assert main([*run, "50%,"]) == 1
    assert "is no share" in capsys.readouterr().err
    assert main([*run, "50%", "--json"]) == 0
    assert '"share"' in capsys.readouterr().out
    assert main([*run, "1%"]) == 1
    assert (
        "no combination of thinner and fewer branches reaches 1%: the smallest network has" in capsys.readouterr().err
    )
    for budget in ("1KB", "0.0001ms@cpu", "9GMACs,0.0001ms"):
        assert main([*run, budget]) == 1
        assert f"reaches {budget}: the smallest network has" in capsys.readouterr().err
    assert main([*run, "50%", "--images", "16"]) == 1
    assert "holds the scores of another run: other images" in capsys.readouterr().err
    monkeypatch.setattr(scoring, "METHOD", "by guess")
    assert main([*run, "50%"]) == 1
    assert "holds the scores of another run: other method" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0%", "101%", "abc%", "50%..", "..", ""])
def test_targets_that_are_none(network: bf.Architecture, text: str) -> None:
    with pytest.raises(BudgetError):
        targets([text], network)


def test_a_family_of_budgets(network: bf.Architecture) -> None:
    family = targets(["100%..30%"], network)
    assert [name for name, _ in family] == ["100%", "90%", "80%", "70%", "60%", "50%", "40%", "30%"]
    assert family[-1][1].macs == int(network.macs * 0.3)


def test_a_half_written_score_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill leaves of a line is cut, and nothing is written behind it."""
    model, out = bf.build(NET, seed=0), tmp_path / "out"
    first = bf.swap(model, "digits", "50%", images=16, out=out)
    file = out / "scores.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    again = bf.swap(model, "digits", "50%", images=16, out=out)
    assert again.scores == first.scores
    assert file.read_bytes() == whole


def test_accuracies_are_of_classes_by_name(tmp_path: Path) -> None:
    """In whatever order the data have them; where they are others, only the answers are compared."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 16, 16), np.uint8), np.arange(60) % 3
    model = bf.build(NET, num_classes=3, seed=0)
    top1 = []
    for names in ("abc", "cab", "xyz"):
        order = np.array([max("abc".find(c), 0) for c in names])
        own = np.argsort(order)[labels] if names != "xyz" else labels
        parts = {f"{x}_{part}": v for part in ("train", "val", "test") for x, v in (("x", images), ("y", own))}
        np.savez(tmp_path / "d.npz", classes=np.array([*names]), **parts)
        model.classes = ("a", "b", "c")
        top1.append(bf.swap(model, f"npz:{tmp_path / 'd.npz'}", "100%", images=12).own.top1)
    assert top1[0] is not None
    assert top1 == [top1[0], top1[0], None]


def test_broken_scores_are_told(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text('{"images": 1}\nno json\n', encoding="utf-8")
    with pytest.raises(RunError, match="holds no scores"):
        bf.swap(bf.build(NET, seed=0), "digits", "50%", images=16, out=tmp_path)
    assert issubclass(RunError, BlockforgeError)


def _made(op: dict[str, Any]) -> Any:
    return make(op["op"], {k: v for k, v in op.items() if k != "op"})
