"""`blockforge convert`: official checkpoints become files of ours, for the variant that they fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import FOLDER
from safetensors import safe_open
from torch import Tensor

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import OutputError
from blockforge.weights import conversion
from blockforge.weights.conversion import convert_file
from blockforge.weights.family import FAMILIES, family_of

FULL = sorted({f.stem for f in FOLDER.glob("*.json")} & set(bf.list_specs()))
Checkpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A file in PoolFormer's official layout, made backwards from a model of ours."""

    def make(**options: Any) -> Path:
        model = bf.build("poolformer_s12", seed=0, **options)
        state: dict[str, Tensor] = {}
        for key, value in model.state_dict().items():
            sources = FAMILIES["poolformer"].sources(key)
            assert sources is not None
            assert len(sources) == 1
            state[sources[0]] = value
        path = tmp_path / "official.pth"
        torch.save({"state_dict": state}, path)
        return path

    return make


@pytest.mark.parametrize("family", [None, "poolformer"])
def test_the_variant_is_found(checkpoint: Checkpoint, tmp_path: Path, family: str | None) -> None:
    out = tmp_path / "out.safetensors"
    arch = convert_file(checkpoint(), out, family=family)
    assert arch.hash == bf.compile("poolformer_s12").hash
    expected = bf.build("poolformer_s12", seed=0).state_dict()
    loaded = bf.build("poolformer_s12", weights=out, seed=1).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in expected.items())
    with safe_open(out, "pt") as file:
        assert file.metadata()["blockforge_spec"] == "poolformer_s12"


def test_a_fine_tuned_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file, out = checkpoint(num_classes=7), tmp_path / "out.safetensors"
    with pytest.raises(bf.WeightsError, match=r"(?s)nearest:.* is \(7, 512\).*hint: .*num_classes=7$"):
        convert_file(file, out)
    assert not out.exists()
    assert main(["convert", str(file), "--set", "num_classes=7", "-o", str(out)]) == 0
    bf.build("poolformer_s12", num_classes=7, weights=out)


def test_the_family_must_be_right(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file, out = checkpoint(), tmp_path / "out.safetensors"
    with pytest.raises(bf.WeightsError, match=r"the layout of poolformer, not of smt\n.*--family poolformer"):
        convert_file(file, out, family="smt")
    with pytest.raises(bf.WeightsError, match=r"no family is named 'pool-former'\n.*poolformer"):
        convert_file(file, out, family="pool-former")
    with pytest.raises(bf.WeightsError, match=r"(?s)official\.pth: the weights do not fit .*hint: without --spec"):
        convert_file(file, out, spec="poolformer_s12", overrides={"stages.0.depth": 1})
    assert not out.exists()


def test_weights_of_ours_need_no_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bf.build("poolformer_s12", {f"stages.{i}.dim": 8 for i in range(4)})
    bf.save_model(model, tmp_path / "own")
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "own" / "model.safetensors"), "-o", str(out)]) == 1
    assert "these are our names already\n  hint: --weights takes the file as it is" in capsys.readouterr().err
    assert not out.exists()


def test_an_unwritable_path(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*: there is no folder .*nowhere\n  hint: mkdir -p "):
        convert_file(checkpoint(), tmp_path / "nowhere" / "out.safetensors")


@pytest.mark.parametrize("name", FULL)
def test_the_variant_of_every_family_is_found(name: str) -> None:
    """Shapes suffice: no values are made."""
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in facts["state"]}
    assert conversion.variant(state, family_of(state)).name == name
