"""Folders of huggingface_hub's mixin, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from timm_models import load_timm

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.integrations import hub

SPECS = Path(__file__).parents[1] / "specs"
FILES = {"spec.yaml", "graph.json", "model.safetensors", "versions.json", "config.json", "README.md"}


def small(**given: Any) -> Backbone:
    return bf.build(SPECS / "batch_norm.yaml", {"stages.1.depth": 1}, seed=3, **given).eval()


def results(model: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        y = model(torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0)))
    return y if isinstance(y, list) else [y]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(results(a), results(b), strict=True))


@pytest.mark.parametrize("given", [{"num_classes": 7}, {"num_classes": 0}, {"out_indices": [1]}], ids=str)
def test_folder_round_trip(tmp_path: Path, given: dict[str, Any]) -> None:
    model = small(**given)
    assert model.save_pretrained(tmp_path / "m") is None
    assert {f.name for f in (tmp_path / "m").iterdir()} == FILES
    for load in (hub.from_pretrained, Backbone.from_pretrained, model.from_pretrained, bf.load_model):
        again = load(tmp_path / "m")
        assert again.arch.hash == model.arch.hash
        assert same(again.eval(), model)
    assert not hub.from_pretrained(str(tmp_path / "m")).training


def test_config_is_the_spec(tmp_path: Path) -> None:
    model = small(num_classes=7)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert bf.compile(config["model_args"]["spec"]).hash == model.arch.hash
    assert (config["num_classes"], config["num_features"]) == (7, 32)
    assert config["pretrained_cfg"]["input_size"] == [3, 40, 56]


def test_a_folder_of_save_model_loads(tmp_path: Path) -> None:
    model = small()
    bf.save_model(model, tmp_path)
    assert same(hub.from_pretrained(tmp_path), model)


def test_timm_loads_the_folder(tmp_path: Path) -> None:
    timm = load_timm()
    import blockforge.timm  # noqa: F401  (registers)

    model = small(num_classes=7)
    model.save_pretrained(tmp_path / "whole")
    assert same(timm.create_model(f"local-dir:{tmp_path}/whole", pretrained=True).eval(), model)
    other = timm.create_model(f"local-dir:{tmp_path}/whole", pretrained=True, num_classes=3).eval()
    assert other(torch.randn(1, 3, 40, 56)).shape == (1, 3)
    assert torch.equal(other.get_submodule("stem.0").weight, model.get_submodule("stem.0").weight)
    model.reset_classifier(0, "")
    model.save_pretrained(tmp_path / "bare")
    assert same(timm.create_model(f"local-dir:{tmp_path}/bare", pretrained=True).eval(), model)
    assert same(hub.from_pretrained(tmp_path / "bare"), model)


def test_model_card(tmp_path: Path) -> None:
    model = small(num_classes=7)
    model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    head, body = text.removeprefix("---\n").split("\n---\n")
    assert "library_name: blockforge" in head
    assert "pipeline_tag: image-classification" in head
    row = f"| {model.arch.params / 1e6:.2f}M | {model.arch.macs / 1e9:.2f}G | 3 x 40 x 56 | 7 |"
    assert row in body
    assert 'from_pretrained("FOLDER_OR_REPOSITORY")' in body
    written = body.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "card.yaml").write_text(written)
    assert bf.compile(tmp_path / "card.yaml").hash == model.arch.hash


def test_model_card_of_feature_maps(tmp_path: Path) -> None:
    model = small(out_indices=[0])
    model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: image-feature-extraction" in text
    params = sum(p.numel() for p in model.parameters())
    assert f"| {params / 1e6:.2f}M |" in text
    assert "| channels of the maps |" in text
    assert "timm" not in text


def test_a_card_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    small().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_push_to_hub_uploads_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            uploads["token"] = token

        def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, repo_id: str, folder_path: Path, **kwargs: Any) -> str:
            uploads.update(repo=repo_id, files={f.name for f in Path(folder_path).iterdir()}, **kwargs)
            uploads["model"] = bf.load_model(folder_path)
            return "url"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    model = small()
    assert model.push_to_hub("me/mine", token="t", commit_message="first") == "url"
    assert (uploads["repo"], uploads["token"], uploads["commit_message"]) == ("me/mine", "t", "first")
    assert uploads["files"] == FILES
    assert same(uploads["model"].eval(), model)


def test_a_repository_is_read_from_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.save_pretrained(tmp_path)
    asked: dict[str, Any] = {}

    def snapshot(repo_id: str, **kwargs: Any) -> str:
        asked.update(kwargs, repo=repo_id)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **kwargs: str(tmp_path / "config.json"))
    assert same(hub.from_pretrained("me/mine", revision="v1"), model)
    assert (asked["repo"], asked["revision"]) == ("me/mine", "v1")
    assert set(asked["allow_patterns"]) == {"spec.yaml", "versions.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["me/gone", "no/such/folder", "a b"])
def test_neither_folder_nor_repository(name: str, tmp_path: Path) -> None:
    with pytest.raises(bf.WeightsError, match=f"'{name}' is no folder, and no repository that could be read"):
        hub.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(bf.BlockforgeError, match=r"spec\.yaml"):
        hub.from_pretrained(tmp_path)
