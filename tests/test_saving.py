"""A model on disk: a folder that reloads, weights of ours, and nothing half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.files import write_atomically

SPECS = Path(__file__).parent / "specs"
FILES = {"spec.yaml", "graph.json", "model.safetensors", "versions.json"}


def _same_results(a: Backbone, b: Backbone) -> bool:
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        left, right = a.eval()(x), b.eval()(x)
    pairs = zip(left, right, strict=True) if isinstance(left, list) else [(left, right)]
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("name", ["sam", "concat", "batch_norm"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    model = bf.build(SPECS / f"{name}.yaml", {"drop_path": 0.2}, num_classes=7, img_size=(40, 56), seed=3)
    bf.save_model(model, tmp_path / "run")
    assert {f.name for f in (tmp_path / "run").iterdir()} == FILES
    again = bf.load_model(tmp_path / "run")
    assert again.arch.hash == model.arch.hash
    assert again.num_classes == 7
    assert _same_results(model, again)


@pytest.mark.parametrize("out_indices", [None, [0], [-1, 0]])
def test_round_trip_of_feature_maps(tmp_path: Path, out_indices: list[int] | None) -> None:
    model = bf.build(SPECS / "sam.yaml", features_only=True, out_indices=out_indices, seed=3)
    bf.save_model(model, tmp_path)
    again = bf.load_model(tmp_path)
    assert again.out_indices == model.out_indices
    assert _same_results(model, again)


def test_round_trip_after_reset_classifier(tmp_path: Path) -> None:
    model = bf.build(SPECS / "sam.yaml", seed=3)
    model.reset_classifier(4, global_pool="max")
    bf.save_model(model, tmp_path)
    again = bf.load_model(tmp_path)
    assert again.num_classes == 4
    assert _same_results(model, again)


def test_what_is_written(tmp_path: Path) -> None:
    model = bf.build(SPECS / "sam.yaml")
    bf.save_model(model, tmp_path)
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions["blockforge"] == bf.__version__
    assert versions["torch"] == torch.__version__
    assert versions["hash"] == model.arch.hash
    assert bf.Architecture.from_json((tmp_path / "graph.json").read_text()).hash == model.arch.hash
    assert bf.compile(tmp_path / "spec.yaml").hash == model.arch.hash


def test_zoo_spec_is_written_without_what_it_extends(tmp_path: Path) -> None:
    model = bf.build(
        "smt_t", {f"stages.{i}.depth": 1 for i in range(4)}, img_size=32, features_only=True, out_indices=[0]
    )
    bf.save_model(model, tmp_path)
    assert "extends" not in (tmp_path / "spec.yaml").read_text()
    assert _same_results(model, bf.load_model(tmp_path))


def test_saving_twice_replaces(tmp_path: Path) -> None:
    first, second = (bf.build(SPECS / "sam.yaml", seed=s) for s in (1, 2))
    bf.save_model(first, tmp_path)
    bf.save_model(second, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == FILES
    assert _same_results(second, bf.load_model(tmp_path))


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail(f: Path) -> None:
        f.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail)
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(bf.BlockforgeError, match=r"spec\.yaml"):
        bf.load_model(tmp_path / "gone")


def test_folder_with_broken_versions(tmp_path: Path) -> None:
    bf.save_model(bf.build(SPECS / "sam.yaml"), tmp_path)
    (tmp_path / "versions.json").write_text("{broken")
    with pytest.raises(bf.BlockforgeError, match=r"versions\.json"):
        bf.load_model(tmp_path)


def test_folder_without_weights(tmp_path: Path) -> None:
    bf.save_model(bf.build(SPECS / "sam.yaml"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(bf.WeightsError, match=r"no weights at .*model\.safetensors"):
        bf.load_model(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_own_weights(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    model, file = bf.build(SPECS / "sam.yaml", seed=3), tmp_path / f"own{suffix}"
    state = model.state_dict()
    (save_file if suffix == ".safetensors" else torch.save)(state, file)
    assert _same_results(model, bf.build(SPECS / "sam.yaml", weights=file))


MISFITS: dict[str, tuple[Any, str]] = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != "head.fc.bias"}, r"missing: head\.fc\.bias"),
    "surplus": (lambda s: {**s, "extra": torch.ones(1)}, r"left over: extra"),
    "shape": (
        lambda s: {**s, "head.fc.bias": torch.ones(3)},
        r"shape: head\.fc\.bias is \(3,\) in the checkpoint, \(10,\) in the network",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_own_weights_that_do_not_fit_change_nothing(tmp_path: Path, case: str) -> None:
    spoil, message = MISFITS[case]
    torch.save(spoil(bf.build(SPECS / "sam.yaml", seed=1).state_dict()), tmp_path / "own.pth")
    model = bf.build(SPECS / "sam.yaml", seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(bf.WeightsError, match=message):
        bf.load_weights(model, tmp_path / "own.pth")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
