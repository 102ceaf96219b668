"""Every spec of the zoo: exact counts, real shapes, real memory, and graphs that reload."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import fx

import blockforge as bf
from blockforge.blocks.joins.meeting import added
from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.modules import image_map
from blockforge.testing import (
    check_costs,
    check_memory,
    check_shapes,
    check_spec,
    count_macs,
    peak_bytes,
    randomise,
)

ZOO = bf.list_specs()
DATA = Path(__file__).parent / "data"
SPECS = sorted((Path(__file__).parent / "specs").glob("*.yaml"))
with (DATA / "zoo.csv").open(encoding="utf-8") as _file:
    KNOWN = {row["variant"]: row for row in csv.DictReader(_file)}
SMALLEST = [
    min((n for n in ZOO if n in KNOWN and KNOWN[n]["family"] == family), key=lambda n: int(KNOWN[n]["params"]))
    for family in sorted({KNOWN[n]["family"] for n in ZOO if n in KNOWN})
]
"""One spec a family, where every variant would only take longer."""
RICH = {
    "windows": {"input.size": [45, 61], "stages.0.window": 4, "stages.1.window": 7},
    "sparx": {
        "stages.1.depth": 5,
        "stages.1.connect": {"rule": "sparx", "stride": 2, "window": 1, "aggregate": "concat"},
    },
    "dense": {"stages.0.depth": 3, "stages.0.connect": {"rule": "dense", "aggregate": "concat"}},
    "all": {
        "input.size": [52, 37],
        "stages.0.window": 4,
        "stages.1.depth": 4,
        "stages.1.window": 5,
        "stages.1.connect": {"rule": "sparx", "stride": 1, "aggregate": "concat"},
        "stage_norm": "layer_norm",
    },
}
"""Connections and windows, put on the small specs."""


def on_meta(name: str, **given: object) -> Backbone:
    """The model without memory behind its tensors: shapes and counts are the same."""
    with torch.device("meta"):
        return bf.build(name, **given)  # type: ignore[arg-type]


def test_every_known_variant_is_found() -> None:
    """A spec of the zoo has a row of exact figures, so that none goes unchecked."""
    assert set(ZOO) <= set(KNOWN)
    assert {"smt_t", "smt_s", "smt_b", "smt_l"} <= set(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_exact_counts(name: str) -> None:
    arch, row = bf.compile(name), KNOWN[name]
    assert arch.params == int(row["params"])
    assert arch.macs - arch.scan_macs == int(row["macs"])


@pytest.mark.parametrize("name", ZOO)
def test_costs_and_shapes_of_the_module(name: str) -> None:
    model = on_meta(name)
    check_costs(model)
    check_shapes(model)


@pytest.mark.parametrize("name", SMALLEST)
def test_odd_sizes(name: str) -> None:
    model = on_meta(name, img_size=(97, 130))
    check_costs(model)
    check_shapes(model, batch=3)


@pytest.mark.parametrize("name", SMALLEST)
def test_real_tensors_agree(name: str) -> None:
    """What the meta device says holds for real ones."""
    model = bf.build(name, img_size=64, seed=0).eval()
    x = torch.randn(1, 3, 64, 64)
    assert count_macs(lambda: model(x)) == model.arch.macs - model.arch.scan_macs
    with torch.no_grad():
        assert model(x).isfinite().all()


def test_peak_memory_of_smt_t() -> None:
    model = bf.build("smt_t", seed=0).eval()
    x = torch.randn(1, 3, 224, 224)
    assert peak_bytes(lambda: model(x)) == pytest.approx(model.arch.activation_bytes, rel=0.1)


@pytest.mark.parametrize("name", SMALLEST)
def test_peak_memory(name: str) -> None:
    check_memory(bf.build(name, img_size=(97, 130), seed=0))


@pytest.mark.parametrize("kind", RICH)
@pytest.mark.parametrize("block", ["sam", "dwconv", "attention"])
def test_windows_and_connections(block: str, kind: str) -> None:
    check_spec(DATA.parent / "specs" / f"{block}.yaml", RICH[kind])


def test_peak_memory_counts_what_a_skip_keeps() -> None:
    file = DATA.parent / "specs" / "dwconv_downsample.yaml"
    with_skip, without = bf.compile(file), bf.compile(file, {"skips": []})
    assert with_skip.activation_bytes >= without.activation_bytes
    assert any(d["role"] == "skip" for _, _, d in with_skip.graph.edges(data=True))
    check_memory(bf.build(with_skip))


def test_peak_memory_scales() -> None:
    arch = bf.compile("swin_tiny")
    beside = arch.peak_activation_bytes(batch=8) - 8 * arch.activation_bytes
    assert 0 < beside < 0.01 * arch.peak_activation_bytes(batch=8)  # copies of weights, which a batch shares
    assert arch.peak_activation_bytes(dtype="bfloat16") * 2 == arch.activation_bytes


@pytest.mark.parametrize("source", [*ZOO, *SPECS], ids=lambda s: s if isinstance(s, str) else s.stem)
def test_json_round_trip(source: str | Path) -> None:
    arch = bf.compile(source)
    again = Architecture.from_json(arch.to_json())
    assert again.hash == arch.hash
    assert again.to_json() == arch.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a graph written by blockforge"),
        ("[1]", "not a graph written by blockforge"),
        ('{"spec": {}}', "not a graph written by blockforge: 'totals'"),
    ],
)
def test_json_that_is_none(text: str, message: str) -> None:
    with pytest.raises(bf.SpecError, match=message):
        Architecture.from_json(text)


def test_json_of_another_graph() -> None:
    text = bf.compile(SPECS[0]).to_json().replace('"hash": "', '"hash": "0')
    with pytest.raises(bf.SpecError, match="the spec now compiles to another graph"):
        Architecture.from_json(text)


@pytest.mark.parametrize("source", SPECS, ids=lambda s: s.stem)
def test_printed_code_is_the_module(source: Path) -> None:
    """`print(model.code)`, run by hand, computes what the module computes."""
    model = randomise(bf.build(source, seed=0)).eval()
    assert isinstance(model, Backbone)
    functions = {f"{f.__module__.replace('.', '_')}_{f.__name__}": f for f in (added, image_map)}
    scope: dict[str, object] = {"torch": torch, "device": torch.device, **functions}
    exec("from __future__ import annotations\n" + model.code, scope)
    forward = scope["forward"]
    assert callable(forward)
    x = torch.randn(2, 3, *model.arch.plan.input.size)
    with torch.no_grad():
        assert torch.equal(forward(model, x), model(x))
        assert torch.equal(fx.Interpreter(model).run(x), model(x))


def test_code_is_readable_and_frees() -> None:
    code = on_meta("smt_t").code
    assert "stages_2_layers_5 = " in code
    assert "stages_2_layers_5 = None" in code
    maps = [line.split(" = ")[0].strip() for line in code.splitlines() if " = self.stages." in line]
    assert all(f"{m} = None" in code for m in maps)


def test_hash_tells_architectures_apart() -> None:
    hashes = {bf.compile(n).hash for n in ZOO}
    assert len(hashes) == len(ZOO)
    assert bf.compile("smt_t", {"name": "other", "about": {}}).hash == bf.compile("smt_t").hash
    assert bf.compile("smt_t", {"stages.2.layers": "sam msa sam msa sam msa sam msa"}).hash == bf.compile("smt_t").hash
    assert bf.compile("smt_t", {"stages.2.layers": "sam* msa*"}).hash != bf.compile("smt_t").hash
