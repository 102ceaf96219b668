"""The start with what most of the best changed alike outside of structure: a baseline of the confirmation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blockforge as bf
from blockforge.search.confirm.entrants import entrants
from blockforge.search.confirm.race import FINAL
from blockforge.search.confirm.session import ConfirmSession
from blockforge.search.confirm.shared import is_outside_structure, shared_changes
from blockforge.search.report.confirmed import rows, verdicts
from blockforge.search.result import SearchResult
from blockforge.spec import holes, load

SPACE: dict[str, Any] = {
    "blockforge": 1,
    "name": "small",
    "input": {"channels": 1, "size": 16},
    "num_classes": 10,
    "defaults": {"norm": "layer_norm"},
    "blocks": {"dw": [{"op": "dwconv", "kernel_size": {"$choice": [3, 5]}}, {"op": "mlp", "mlp_ratio": 1}]},
    "stem": {
        "$choice": {
            "patch": {"op": "patch_embed", "patch": 2},
            "conv": {"op": "conv_stem", "kernel_size": {"$choice": [3, 5]}},
        }
    },
    "stages": [{"dim": {"$int": [4, 32]}, "depth": {"$int": [1, 3]}, "layers": "dw"}],
    "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
}  # fmt: skip


def start() -> dict[str, Any]:
    tree = copy.deepcopy(SPACE) | {"name": "seven", "stem": {"op": "patch_embed", "patch": 2}}
    tree["blocks"]["dw"][0]["kernel_size"] = 3
    tree["stages"] = [{"dim": 8, "depth": 1, "layers": "dw"}]
    return tree


def kernels(arch: bf.Architecture) -> float:
    """Best with large kernels, whatever else."""
    return float(sum(node.parameters.get("kernel_size", 0) for node in arch.nodes.values() if node.op != "mlp"))


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def figures(self: ConfirmSession, network: str, seed: int, folder: Path) -> dict[str, float]:
        top1 = 80.0 + int(network, 16) % 7 + seed % 5
        return {"top1": top1, "images": 100.0, **({"test": top1} if seed >= FINAL else {})}

    monkeypatch.setattr(ConfirmSession, "_figures", figures)
    np.savez(tmp_path / "d.npz", images=np.zeros((30, 8, 8), np.uint8), labels=np.arange(30) % 3)

    def run(objective: Any, **more: Any) -> SearchResult:
        settings = {"trials": 16, "confirm": 2, "confirm_seeds": 3, "sampler": "random", "start": [start()], **more}
        return bf.search(SPACE, objective=objective, data=f"npz:{tmp_path / 'd.npz'}", **settings)

    return run


@pytest.mark.parametrize(
    ("path", "outside"),
    [("stem", True), ("stem.kernel_size", True), ("downsample.ratio", True), ("defaults.norm", True),
     ("stages.1.downsample", True), ("blocks.a.0.kernel_size", True), ("blocks.a.1.norm", True),
     ("stem.dim", False), ("stages.1.dim", False), ("stages.1.depth", False), ("blocks.a.0", False),
     ("stages.1.layers", False), ("stages.1.connect", False), ("blocks.a.0.num_heads", False), ("let.ffn", False)],
)  # fmt: skip
def test_what_is_outside_of_structure_is_told_by_its_place(path: str, outside: bool) -> None:
    assert is_outside_structure(tuple(int(p) if p.isdigit() else p for p in path.split("."))) == outside


def test_more_than_half_must_share_a_change() -> None:
    known = holes(load(SPACE))
    old = {"stem": "patch", "blocks.dw.0.kernel_size": 3, "stages.0.depth": 1}
    new = {"stem": "conv", "stem.kernel_size": 5, "blocks.dw.0.kernel_size": 5, "stages.0.depth": 3}
    assert shared_changes(known, old, [new, new, old]) == {
        "stem": "conv", "stem.kernel_size": 5, "blocks.dw.0.kernel_size": 5,
    }  # fmt: skip
    assert "stem" not in shared_changes(known, old, [new, old])
    assert shared_changes(known, old, [old, old]) == {}


def test_the_start_with_shared_changes_is_a_baseline(search: Any) -> None:
    result = search(kernels)
    known = result.confirmed
    assert known is not None
    generic = next(e for e in known.entered.baselines if e.role == "generic")
    own = bf.compile({**start(), "stem": {"op": "conv_stem", "kernel_size": 5}}, {"blocks.dw.0.kernel_size": 5})
    assert (generic.hash, generic.trial.macs) == (own.hash, own.macs)
    assert generic.label == "start seven with 3 shared changes"
    assert [e.role for e in known.entered.baselines][:2] == ["start", "generic"]
    measured = [m for m in known.baselines if m.entrant.role == "generic"]
    assert [m.lead.values for m in measured if m.lead is not None] == [3]
    assert any(row[0] == generic.label for row in rows(known))
    assert (
        "The best third mostly have blocks.dw.0.kernel_size=5, stem=conv, stem.kernel_size=5: "
        "a lead over seven alone may be due to that."
    ) in verdicts(result, known)


def test_it_is_fitted_as_the_candidates_are(search: Any) -> None:
    result = search(kernels, budget="60kMACs", fit=0.9)
    generic = next(e for e in result.confirmed.entered.baselines if e.role == "generic")
    assert 54_000 <= generic.trial.macs <= 60_000
    assert generic.trial.widths
    assert entrants(result.plan, result.trials) == result.confirmed.entered


def test_a_start_that_the_budget_refused_has_one_too(search: Any) -> None:
    """Something cheaper than it is wanted, so it is over the budget."""
    known = search(kernels, cheaper="macs", budget=f"{bf.compile(start()).macs - 1}MACs").confirmed
    begun, generic = known.entered.baselines[:2]
    assert (begun.trial.state, begun.role, generic.role) == ("refused", "start", "generic")
    assert generic.label.startswith("start seven with ")


@pytest.mark.parametrize("objective", ["depth", lambda arch: -kernels(arch)])
def test_without_such_changes_there_is_none(search: Any, objective: Any) -> None:
    """What the best share is structure, or what the start has itself."""
    settings = {"overrides": {"stem": {"op": "patch_embed", "patch": 2}, "blocks.dw.0.kernel_size": 3}}
    result = search(objective, **(settings if objective == "depth" else {}))
    assert all(e.role != "generic" for e in result.confirmed.entered.baselines)
