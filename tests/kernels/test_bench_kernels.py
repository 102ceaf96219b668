"""`blockforge bench kernels`, at sizes that take no time."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from blockforge.cli import main
from blockforge.kernels import operators
from blockforge.kernels.benchmark import Case
from blockforge.kernels.cross_scan import bench as cross_scan
from blockforge.measure import kernels, scaling


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("tiny", partial(cross_scan.make, 1, 4, 8, 1, 2), cross_scan.run, cross_scan._copies, "copies")
    monkeypatch.setattr(cross_scan, "cases", lambda: [case])
    monkeypatch.setattr(scaling, "SIDES", (4, 6, 8))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("backward", [[], ["--backward"]])
def test_times_every_backend(backward: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--op", "cross_scan", "--runs", "3", "--json", *backward]) == 0
    found = json.loads(capsys.readouterr().out)
    usable = [n for n in operators()["cross_scan"].available(torch.empty(0)) if n not in ("reference", "triton")]
    assert [t["side"] for t in found] == ["copies", *usable]
    assert found[0]["faster"] == 1.0
    assert all(t["ms"] > 0 and t["low"] <= t["faster"] <= t["high"] and t["difference"] < 1e-5 for t in found)
    assert all(t["memory"] >= 1 for t in found)


@pytest.mark.usefixtures("small")
def test_shows_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--op", "cross_scan", "--runs", "3"]) == 0
    text = capsys.readouterr().out
    assert "times faster" in text
    assert "tiny" in text


@pytest.mark.usefixtures("small")
def test_scaling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--scaling", "--runs", "3", "--out", str(tmp_path / "s.png")]) == 0
    assert "1 is linear" in capsys.readouterr().out
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_exponents_of_known_growth() -> None:
    points = [scaling.Point("torch", n, n * n, 2.0 * (n * n) ** 1.5) for n in (2, 4, 8)]
    assert scaling.exponents(points) == {"torch": pytest.approx(1.5)}


def test_a_wrong_backend_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    make = partial(cross_scan.make, 1, 4, 8, 1, 2)
    case = Case("wrong", make, cross_scan.run, lambda *t: 2 * cross_scan.run(*t), "twice")
    monkeypatch.setattr(cross_scan, "cases", lambda: [case])
    with pytest.raises(AssertionError, match=r"cross_scan, wrong: .* differs from twice by 5.0e-01"):
        list(kernels.measure("cross_scan", backward=False, runs=3, threads=0, device="cpu"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--op", "selectve_scan"], "did you mean 'selective_scan'"),
        (["--device", "cuda:7"], "there is no device 'cuda:7' here"),
        (["--out", "x.png"], "--out draws what --scaling measures"),
    ],
)
def test_mistakes(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", *options]) == 1
    assert message in capsys.readouterr().err


def test_every_case_has_a_name() -> None:
    """Every operator with a bench has cases, and no name is repeated."""
    found = kernels.cases(None)
    assert len({(op, case.name) for op, case in found}) == len(found) > 0
