"""`ablate`, `diff` and `bench models`: tables that hold networks against each other."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm

import blockforge as bf
from blockforge.ablation import list_ablations, run
from blockforge.cli import main
from blockforge.compiler.diff import changes
from blockforge.kernels.selective_scan import selective_scan
from blockforge.measure.peers import load_peer

SMALL = """\
blockforge: 1
name: small
extends: smt_t
input: {size: 64}
num_classes: 6
stages:
  0: {dim: 8, depth: 1}
  1: {dim: 16, depth: 1}
  2: {dim: 32, depth: 2}
  3: {dim: 64, depth: 1}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list_ablations())
def test_packaged_ablations_compile(name: str) -> None:
    spec, rows = run(name)
    assert len(rows) == len(spec.rows) > 1
    hashes = {row.arch.hash for row in rows}
    assert len(hashes) == len(rows), "two rows are the same network"


@pytest.mark.parametrize("name", list_ablations())
def test_parameters_of_ablations_round_to_the_reported_ones(name: str) -> None:
    for row in run(name)[1]:
        reported = row.spec.reported.get("params")
        if reported is not None:
            digits = len(reported.rstrip("M").partition(".")[2])
            assert f"{row.arch.params / 1e6:.{digits}f}M" == reported or row.spec.note, row.spec.label


def test_ablation_of_ones_own(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(
        "base: small.yaml\nrows:\n  - {label: released, set: {}, reported: {top1: 80.0}}\n"
        "  - {label: 2 heads, set: {blocks.sam.0.num_heads: 2}, note: fewer kernels}\n",
        encoding="utf-8",
    )
    assert main(["ablate", str(table), "--latency", "-o", str(tmp_path / "out.csv")]) == 0
    assert "2 heads: fewer kernels" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    assert [r["label"] for r in rows] == ["released", "2 heads"]
    assert int(rows[0]["params"]) == bf.compile(str(small)).params
    assert float(rows[0]["latency_ms"]) > 0
    assert rows[0]["reported_top1"] == "80.0"
    assert main(["ablate", str(table), "-o", str(tmp_path / "out.md")]) == 0
    assert (tmp_path / "out.md").read_text(encoding="utf-8").startswith("| variant | params | MACs |")


def test_mistakes_in_ablations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.yaml"
    table.write_text("base: smt_t\nrows:\n  - {label: a, sets: {}}\n", encoding="utf-8")
    assert main(["ablate", str(table)]) == 1
    assert "did you mean 'set'" in capsys.readouterr().err
    assert main(["ablate", "smt_head"]) == 1
    assert "did you mean 'smt_heads'" in capsys.readouterr().err
    assert main(["ablate", "smt_heads", "-o", "table.xls"]) == 1
    assert ".csv or .md" in capsys.readouterr().err


def test_diff(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(small), str(small)]) == 0
    assert "are the same architecture" in capsys.readouterr().out
    assert main(["diff", "smt_t", "smt_s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["params"] == [11506536, 22550952]
    assert sum(c["params"] for c in found["changes"]) == 22550952 - 11506536
    assert main(["diff", "smt_t", "smt_s"]) == 0
    assert "stages.2.layers.17" in capsys.readouterr().out


def test_diff_sees_parameters_and_nothing_else(small: Path) -> None:
    a, b = bf.compile(str(small)), bf.compile(str(small), {"blocks.sam.0.expand": 1})
    assert [c.name for c in changes(a, b)] == ["stages.0.layers.0", "stages.1.layers.0", "stages.2.layers.0"]
    spelt = bf.compile(str(small), {"blocks.sam.0.mixed": True, "name": "other"})
    assert changes(a, spelt) == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("skip", False, "skip false"),
        ("scale", 0.5, "scale "),
        ("post_act", "relu", "post_act relu"),
        ("norm", "none", "norm "),
    ],
)
def test_diff_says_what_stands_around_a_block_that_is_the_same(small: Path, key: str, value: Any, words: str) -> None:
    a, b = bf.compile(str(small)), bf.compile(str(small), {f"blocks.sam.0.{key}": value})
    assert (differing := changes(a, b))
    assert all(c.before != c.after for c in differing)
    assert all(words in f"{c.before} {c.after}" for c in differing)


def test_bench_models(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text(
        "from missing_package.layers import DropPath, to_2tuple\nfrom missing_package import register\n"
        f"import blockforge as bf\n\n@register\ndef small():\n    DropPath(0.1), to_2tuple(3)\n"
        f"    return bf.build({str(small)!r}, seed=1)\n",
        encoding="utf-8",
    )
    argv = ["bench", "models", str(small), "--against", str(peer), "--batch", "1,2", "--size", "64", "--runs", "3"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["batch"] for c in found] == [1, 2]
    assert all(c["low"] <= c["ratio"] <= c["high"] and c["difference"] is None for c in found)
    assert main([*argv, "--train"]) == 0
    assert "training step" in capsys.readouterr().out
    peer.write_text("def broken():\n    raise ValueError('no config')\n")
    assert main(["bench", "models", "smt_t", "--against", f"{peer}:broken"]) == 1
    assert "broken() fails: ValueError: no config\n  hint: name a file of your own" in capsys.readouterr().err
    assert main(["bench", "models", "smt_t", "--against", f"{peer}:nothing"]) == 1
    assert "has no 'nothing' to call" in capsys.readouterr().err
    assert main(["bench", "models", "smt_t", "--against", str(peer), "--batch", "x"]) == 1
    assert "is not a list of batch sizes" in capsys.readouterr().err


def test_a_peer_that_needs_files_beside_it_and_a_scan_that_needs_cuda(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("from missing_cuda_package import anything\nWIDTH = 3\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nfrom .parts import WIDTH\n"
        "from mamba_ssm.ops.selective_scan_interface import selective_scan_fn\n\n"
        "class Net(nn.Module):\n    width = WIDTH\n"
        "    def forward(self, u, delta, A, B, z):\n"
        "        return selective_scan_fn(u, delta, A, B, B, z=z, delta_softplus=True, return_last_state=None)\n"
    )
    net = load_peer(f"{tmp_path / 'net.py'}:Net")
    assert net.width == 3
    u, delta, z = torch.randn(3, 2, 4, 5).unbind()
    A, B = -torch.rand(4, 2), torch.randn(2, 2, 5)
    expected = selective_scan(u, delta, A, B[:, None], B[:, None], delta_softplus=True) * torch.nn.functional.silu(z)
    torch.testing.assert_close(net(u, delta, A, B, z), expected)


def test_a_peer_from_timm() -> None:
    load_timm()
    assert sum(p.numel() for p in load_peer("timm:resnet50").parameters()) == bf.compile("resnet50").params
    with pytest.raises(bf.BlockforgeError, match=r"timm has no model 'resnet5O'\n.*resnet50"):
        load_peer("timm:resnet5O")
