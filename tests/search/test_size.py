"""How many networks a space holds, against a walk through all of them; samples and what is shown of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import blockforge as bf
from blockforge.cli import main
from blockforge.search import SearchError, load_space
from blockforge.search.space.size import count, enumerate_space
from blockforge.search.space.statistics import distinct_networks, draw_specs, histogram, sample_costs
from blockforge.spec import Spec
from blockforge.units import Budget, parse_budget

DW = {"op": "dwconv", "norm": "none"}
FEWER = {"stages.0.dim": 8, "stages.1.dim": 16, "stages.1.depth": {"$int": [1, 3]}}


def changed(tiny: Spec, **changes: Any) -> Spec:
    return bf.load(tiny, FEWER | {k.replace("__", "."): v for k, v in changes.items()})


CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "one name in two places": {"stages__0__depth": "$heads", "stages__1__depth": "$heads"},
    "a block that only some patterns name": {"stages__1__layers": {"$choice": ["dw", "sam*2", "sam"]}},
    "a pattern that is cut": {"stages__1__layers": {"$choice": ["(dw sam)*", "dw*3"]}},
    "choices of branches": {"blocks__dw": {"$choice": [[DW], [DW, {"op": "mlp", "mlp_ratio": {"$choice": [1, 2]}}]]}},
    "defaults": {
        "defaults": {"norm": {"$choice": ["layer_norm", {"op": "group_norm", "num_groups": {"$choice": [1, 2]}}]}},
        "stages__1__connect": "none",
    },
    "a shared downsample": {"downsample__kernel_size": {"$choice": [3, 5]}, "stages__1__connect": "none"},
    "a choice that brings others, in two places": {
        "let__conn": {"$choice": ["none", {"rule": "sparx", "stride": {"$int": [1, 3]}, "aggregate": "concat"}]},
        "stages__1__connect": "$conn",
        "stages__0__connect": "$conn",
    },
    "a whole stage": {
        "stages__0": {
            "$choice": [
                {"dim": 8, "depth": {"$int": [1, 2]}, "layers": "dw"},
                {"dim": 8, "depth": 3, "layers": "sam", "window": {"$choice": ["none", 4]}},
            ]
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_the_count_is_that_of_a_walk(tiny: Spec, name: str) -> None:
    space = changed(tiny, **CASES[name])
    walked = [tuple(answers.items()) for answers, found in enumerate_space(space) if _counts(found)]
    assert len(set(walked)) == len(walked) == count(space).combinations


def _counts(found: Any) -> bool:
    """Patterns that do not give the depth are no combinations."""
    return not (isinstance(found, bf.SpecError) and found.diagnostics[0].code == "layers")


def test_ranges_of_floats_count_once(tiny: Spec) -> None:
    space = changed(tiny, drop_path={"$float": [0.0, 0.5]})
    assert count(space).continuous == ("drop_path",)
    assert count(space).combinations == count(changed(tiny)).combinations
    with pytest.raises(SearchError, match="cannot be enumerated: drop_path is a range of floats"):
        next(enumerate_space(space))


def test_large_spaces_are_counted_and_not_walked() -> None:
    assert count(load_space()).combinations > 10**20
    with pytest.raises(SearchError, match="up to 20000 are enumerated\n  hint: --sample N"):
        next(enumerate_space(load_space()))


def test_different_networks_of_a_small_space(few: Spec) -> None:
    networks, invalid = distinct_networks(few)
    assert len({a.hash for a in networks}) == len(networks) == 6
    assert invalid == 0
    wrong = bf.load(few, {"require": ["stages.1.depth < 2"]})
    assert (len(distinct_networks(wrong)[0]), distinct_networks(wrong)[1]) == (3, 3)


def test_a_sample_counts_what_is_valid_and_what_fits(tiny: Spec) -> None:
    space = bf.load(tiny, {"require": ["stages.1.depth >= 2"]})
    budget = parse_budget("400KFLOPs")
    sample = sample_costs(space, 60, 3, budget)
    assert sample.drawn == 60
    assert sample.valid + sum(sample.refused.values()) == 60
    assert list(sample.refused) == ["stages.1.depth >= 2"]
    assert sample.within == sum(macs <= 400_000 for macs in sample.costs["macs"])
    assert sample_costs(space, 60, 3, budget).costs == sample.costs
    bins = histogram(sample.costs["params"])
    assert sum(n for *_, n in bins) == sample.valid
    assert bins[0][0] == pytest.approx(min(sample.costs["params"]))


def test_a_space_without_a_valid_network_says_why(tiny: Spec) -> None:
    with pytest.raises(bf.SpecError, match=r"stages\.1\.depth > 9 does not hold"):
        sample_costs(bf.load(tiny, {"require": ["stages.1.depth > 9"]}), 10, 0, Budget())


def test_drawn_specs_differ_and_keep_the_budget(tiny: Spec, few: Spec) -> None:
    budget = parse_budget("400KFLOPs")
    found = list(draw_specs(tiny, 8, 0, budget))
    assert len({a.hash for a in found}) == 8
    assert all(a.macs <= 400_000 for a in found)
    assert [a.name for a in found][:2] == ["tiny_0000", "tiny_0001"]
    fitted = list(draw_specs(tiny, 4, 0, budget, share=0.9))
    assert all(0.9 <= a.macs / 400_000 <= 1 for a in fitted)
    with pytest.raises(SearchError, match="gave 6 networks, not 7"):
        list(draw_specs(few, 7, 0, Budget()))


# --- the command


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["space", *args]) == 0
    return capsys.readouterr().out


def test_space_shows_holes_size_and_costs(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    out = run(
        capsys, "tiny", "--budget", "5MFLOPs", "--budget", "500Kparams", "--draws", "40", "-o", f"{tmp_path}/t.png"
    )
    assert "stages.1.connect.aggregate.op   dmca, concat, gated_sum" in out
    assert "combinations of 32 holes, counted exactly" in out
    assert "an upper bound on its networks: 1 relation in require" in out
    assert "of 40 random draws" in out
    assert "lie within 5.00M MACs, 500K params" in out
    assert "activation memory" in out
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_space_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "strip", "--draws", "20", "--budget", "5GFLOPs", "--json"))
    assert found["holes"]["stages.0.dim"] == {"kind": "int", "values": "32 to 128 in steps of 16", "count": 7}
    assert found["budget"] == {"macs": 5_000_000_000}
    assert len(found["sample"]["costs"]["macs"]) == found["sample"]["valid"]


def test_space_writes_specs(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    args = ("--sample", "3", "--budget", "5MFLOPs", "--fit", "0.97", "-o", str(tmp_path / "specs"))
    assert run(capsys, "tiny", *args) == f"3 specs of tiny in {tmp_path / 'specs'}\n"
    specs = sorted((tmp_path / "specs").iterdir())
    assert [f.name for f in specs] == ["tiny_0000.yaml", "tiny_0001.yaml", "tiny_0002.yaml"]
    for file in specs:
        assert 0.97 * 5e6 <= bf.compile(file).macs <= 5e6
        assert bf.load(file).tree["about"] == {"search": {"space": "tiny", "seed": 0}}


def test_space_enumerates(capsys: pytest.CaptureFixture[str], tmp_path: Any, few: Spec) -> None:
    (tmp_path / "few.yaml").write_text(few.to_yaml())
    out = run(capsys, str(tmp_path / "few.yaml"), "--enumerate", "-o", str(tmp_path / "all"))
    assert out.startswith("tiny: 6 different networks; 0 combinations of holes are invalid\n6 specs in ")
    assert len(list((tmp_path / "all").iterdir())) == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("tiny", "--fit", "0.97"), "it fits specs that --sample writes"),
        (("tiny", "--sample", "3"), "say where to: -o DIR"),
    ],
)
def test_space_options_that_need_others(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    assert main(["space", *args]) == 2
    assert message in capsys.readouterr().err
