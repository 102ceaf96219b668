"""What connections cost in memory: `blockforge show` says it from liveness, torch's profiler finds the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.measure.memory import allocated_peak
from blockforge.units import format_bytes

NET: dict[str, Any] = {
    "blockforge": 1,
    "name": "wired",
    "input": {"size": 32},
    "num_classes": 4,
    "defaults": {"norm": "layer_norm"},
    "blocks": {"mix": ["$mixer", {"op": "mlp", "mlp_ratio": 1}]},
    "stem": {"op": "patch_embed", "patch": 2},
    "head": {"op": "classifier"},
}
WIRINGS: dict[str, Any] = {
    "none": None,
    "sparx": {"rule": "sparx", "stride": 2, "window": 2, "aggregate": "concat"},
    "dgc": {"rule": "sparx", "stride": 2, "window": "all", "aggregate": "concat"},
    "dsn": {"rule": "dense", "aggregate": "concat"},
}
MIXERS = {
    "attention": {"op": "attention", "num_heads": 2},
    "windows": {"op": "attention", "num_heads": 2, "window": 4},
    "strips": {"op": "strip_mixing"},
    "pooling": {"op": "pooling"},
}


def net(mixer: str, wiring: str) -> dict[str, Any]:
    stage: dict[str, Any] = {"dim": 32, "depth": 8, "layers": "mix", "let": {"mixer": MIXERS[mixer]}}
    if WIRINGS[wiring] is not None:
        stage["connect"] = WIRINGS[wiring]
    return {**NET, "stages": [stage]}


def run(model: torch.nn.Module, batch: int) -> None:
    with torch.inference_mode():
        model(torch.zeros(batch, 3, 32, 32))


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_the_prediction_is_what_torch_allocates(mixer: str, wiring: str) -> None:
    arch = bf.compile(net(mixer, wiring))
    model = bf.build(arch, seed=0).eval()
    few, many = (allocated_peak(lambda n=n: run(model, n)) for n in (4, 20))
    measured = (many - few) / 16  # what each image adds
    assert arch.activation_bytes == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("mixer", MIXERS)
def test_dense_connections_cost_more_than_sparse_ones(mixer: str) -> None:
    peaks = [bf.compile(net(mixer, wiring)).activation_bytes for wiring in WIRINGS]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[1] < peaks[3]


def test_show_prints_the_peak(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for wiring in WIRINGS:
        spec = bf.load(net("pooling", wiring))
        (tmp_path / "net.yaml").write_text(spec.to_yaml())
        assert main(["show", str(tmp_path / "net.yaml")]) == 0
        assert format_bytes(bf.compile(spec).activation_bytes) in capsys.readouterr().out
