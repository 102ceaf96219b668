"""`blockforge profile`: what it reports is what happened, in every form that it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.measure.memory import allocated_peak
from blockforge.measure.nodes import node_times
from blockforge.measure.profile import ProfileError, Setting, measure, pick_device, settings

SMALL: dict[str, Any] = {"input.size": 32, **{f"stages.{i}.depth": 1 for i in range(4)}, "stages.2.layers": "sam"}
ARGUMENTS = [f"--set={k}={v}" for k, v in SMALL.items()]


def test_percentiles_are_of_the_calls_that_were_timed() -> None:
    model = bf.build("smt_t", SMALL, seed=0)
    ticks = iter(range(10_000))
    found = measure(model, Setting(2, "fp32"), seconds=0, clock=lambda: float(next(ticks)))
    assert found.runs == 7
    assert found.p10_ms == found.p50_ms == found.p99_ms == 1000.0  # one tick of the clock a call
    assert found.images_per_second == 2.0
    assert found.spread == 0.0


def test_the_peak_is_that_of_the_graph() -> None:
    arch = bf.compile("smt_t", {**SMALL, "input.size": 160})  # maps outweigh what convolutions make of weights
    few, many = (measure(bf.build(arch, seed=0), Setting(n, "fp32"), seconds=0).peak_bytes for n in (4, 12))
    assert (many - few) / 8 == pytest.approx(arch.activation_bytes, rel=0.1)
    trained = measure(bf.build(arch, seed=0), Setting(4, "fp32", train=True), seconds=0)
    assert trained.peak_bytes > 2 * few


def test_a_known_allocation_is_seen() -> None:
    def run() -> None:
        first = torch.zeros(1000, dtype=torch.float32)
        second = first + 1
        del first, second
        torch.zeros(500)

    assert allocated_peak(run) == pytest.approx(8000, abs=64)


def test_every_node_with_a_module_is_timed() -> None:
    arch = bf.compile("sparx_mamba_t", {"input.size": 32})
    nodes = node_times(bf.build(arch, seed=0), Setting(1, "fp32"), runs=1)
    kinds = {name: node["kind"] for name, node in arch.graph.nodes(data=True)}
    assert {n.name for n in nodes} == {name for name, kind in kinds.items() if kind not in ("input", "add")}
    assert sum(n.share for n in nodes) == pytest.approx(1)
    assert {kinds[n.name] for n in nodes} >= {"mixer", "ffn", "aggregator", "stem", "head"}
    assert all(n.ms > 0 for n in nodes)


def test_bf16_and_compiled_settings() -> None:
    assert [str(s) for s in settings("1, 8", "fp32,bf16", compiled=True)][:3] == [
        "batch 1, fp32",
        "batch 1, fp32, compiled",
        "batch 8, fp32",
    ]
    found = measure(bf.build("smt_t", SMALL, seed=0), Setting(1, "bf16"), seconds=0)
    assert found.as_dict()["dtype"] == "bf16"


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "profile"
    command = ["profile", "smt_t", *ARGUMENTS, "--batch", "1,2", "--seconds", "0.01", "-o", str(folder)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "batch 2, fp32" in printed
    assert "conv_mlp" in printed
    with open(folder / "latency.csv", encoding="utf-8") as file:
        assert [row["batch"] for row in csv.DictReader(file)] == ["1", "2"]
    with open(folder / "nodes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    text = (folder / "nodes.svg").read_text()
    ElementTree.fromstring(text)
    assert text.count("of the time") == len(rows) + 1  # the image, at 0%


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "smt_t", *ARGUMENTS, "--batch", "1", "--seconds", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["latency"][0]["runs"] >= 7
    assert found["nodes"][0]["name"] == "stem"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "1,x"], "'1,x' is not a list of batch sizes"),
        (["--dtype", "fp23"], "no type is named 'fp23'"),
        (["--device", "cdua"], "no device is named 'cdua'"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "smt_t", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ProfileError, match="no CUDA device"):
        pick_device("cuda:1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda() -> None:
    found = measure(bf.build("smt_t", SMALL, seed=0), Setting(2, "bf16"), "cuda", seconds=0.1)
    assert found.peak_bytes > 0
