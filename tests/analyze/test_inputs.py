"""Which networks and which images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import blockforge as bf
from blockforge.ablation import load_ablation
from blockforge.analyze import AnalysisError, build_networks, estimate_statistics, networks_with_images, open_images
from blockforge.analyze.network_images import pair
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.train import DataError

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]
SPECS = Path(__file__).parents[1] / "specs"
TABLE = f"""base: {SPECS / "attention.yaml"}
rows:
  - {{label: plain, set: {{}}}}
  - {{label: two heads, set: {{blocks.layer.0.num_heads: 2}}}}
"""


def picture(path: Path, value: int, size: tuple[int, int] = (56, 40)) -> Path:
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_noise_follows_from_its_seed(small: Small) -> None:
    model = small("attention")
    a, b, c = (open_images(None, model, count=5, batch_size=2, seed=s) for s in (0, 0, 1))
    assert [len(batch) for batch in a.batches] == [2, 2, 1]
    assert len(a) == 5
    assert torch.equal(torch.cat(a.batches), torch.cat(b.batches))
    assert not torch.equal(torch.cat(a.batches), torch.cat(c.batches))
    assert open_images("noise", model, count=1, batch_size=1).name == "noise"


def test_files_come_by_name_and_normalised(small: Small, tmp_path: Path) -> None:
    model = small("attention")
    (tmp_path / "b").mkdir()
    for name, value in (("b/2.png", 255), ("a.png", 0), ("c.bmp", 51)):
        picture(tmp_path / name, value)
    found = open_images(str(tmp_path), model, count=2, batch_size=8)
    assert [round(float(p.mean()), 3) for p in found.pictures[0]] == [0.0, 1.0]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found.batches[0][0, :, 0, 0], -mean / std)
    (one,) = open_images(str(tmp_path / "c.bmp"), model, count=4, batch_size=4).pictures
    assert tuple(one.shape) == (1, 3, 40, 56)
    assert float(one.max()) == pytest.approx(0.2)


def test_data_sets_come_from_train(small: Small, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((12, 40, 56, 3), dtype=np.float32)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(12) % 2)
    found = open_images(f"npz:{tmp_path / 'd.npz'}", small("attention"), count=8, batch_size=8)
    assert tuple(found.pictures[0].shape) == (2, 3, 40, 56)  # a fifth of the images is for evaluation
    assert abs(float(found.batches[0].mean())) < 0.2


def test_a_run_beside_the_weights_says_how_images_are_normalised(small: Small, tmp_path: Path) -> None:
    from blockforge.train.logs import RUN

    run = {"preprocess": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / RUN).write_text(json.dumps(run), encoding="utf-8")
    file = picture(tmp_path / "a.png", 255)
    found = open_images(str(file), small("attention"), count=1, batch_size=1, weights=tmp_path / "w.safetensors")
    assert float(found.batches[0].max()) == 2.0


def test_images_that_are_not_there(small: Small, tmp_path: Path) -> None:
    model = small("attention")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnalysisError, match=r"empty holds no images\n  hint: files that end in .jpg"):
        open_images(str(tmp_path / "empty"), model, count=1, batch_size=1)
    (tmp_path / "x.png").write_text("no image", encoding="utf-8")
    with pytest.raises(DataError, match=r"x.png is not an image that can be read"):
        open_images(str(tmp_path / "x.png"), model, count=1, batch_size=1)
    with pytest.raises(DataError, match=r"no data source 'nosuch'"):
        open_images("nosuch", model, count=1, batch_size=1)


def test_rows_of_a_table_and_variants(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(TABLE, encoding="utf-8")
    spec = str(SPECS / "attention.yaml")
    found = build_networks(
        [spec, f"{file}:2", f"{file}:two heads"],
        overrides=["input.size=32"],
        variants=["deep: stages.1.depth=3; drop_path=0.1"],
    )
    assert [s.label for s in found] == ["attention", "two heads", "two heads (2)", "deep"]
    assert {tuple(s.model.arch.plan.input.size) for s in found} == {(32, 32)}
    heads = [s.model.get_submodule("stages.0.layers.0.attention.op").num_heads for s in found]
    assert heads == [4, 2, 2, 4]
    assert [s.model.arch.depth for s in found] == [3, 3, 3, 4]
    assert not any(s.model.training for s in found)


def test_a_packaged_table_stands_for_all_of_its_rows() -> None:
    table, _ = load_ablation("vssd_weight")
    found = build_networks(["vssd_weight"], overrides=["input.size=32"])
    assert [s.label for s in found] == [row.label for row in table.rows]


@pytest.mark.parametrize(
    ("names", "given", "text"),
    [
        (["sparx_connections:99"], {}, r"no row '99'\n  hint: its rows: 1 'none', 2 'dense \(DSN\)'"),
        (["nosuch:1"], {}, r"no ablation named 'nosuch'"),
        (["smt_t"], {"variants": ["no colon"]}, r"'no colon' is no variant\n  hint: LABEL: path=value"),
        (["smt_t", "smt_s"], {"weights": [Path("w")]}, r"1 files of weights for 2 networks \(smt_t, smt_s\)"),
    ],
)
def test_mistakes_in_what_to_look_at(names: list[str], given: dict[str, list[str]], text: str) -> None:
    with pytest.raises(bf.BlockforgeError, match=text):
        build_networks(names, **given)  # type: ignore[arg-type]


def test_weights_go_to_their_networks(small: Small, tmp_path: Path) -> None:
    model = small("attention")
    bf.save_model(model, tmp_path)
    file = tmp_path / "model.safetensors"
    (found,) = build_networks([str(SPECS / "attention.yaml")], weights=[file], seed=3)
    assert found.weights == file
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in model.state_dict().items())


def test_batch_norms_of_new_networks_get_the_images_statistics(small: Small, noise: Noise) -> None:
    model = bf.build(SPECS / "batch_norm.yaml", seed=0).eval()
    x = noise(model, 8) * 7 + 3
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen: list[Tensor] = []
    estimate_statistics(model, list(x.split(4)))
    hook = norm.register_forward_hook(lambda _, args, value: seen.append(value.detach()))
    model(x)
    hook.remove()
    dims = (0, 2, 3)
    assert float(seen[0].mean(dims).abs().max()) < 0.05
    assert float((seen[0].std(dims) - 1).abs().max()) < 0.1
    assert not norm.training
    assert norm.momentum == 0.1
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    estimate_statistics(model, [x[:1]])
    assert torch.equal(before, norm.running_mean)  # type: ignore[arg-type]


def test_networks_of_a_comparison_see_the_same(tmp_path: Path) -> None:
    specs = [str(SPECS / f"{name}.yaml") for name in ("attention", "nc_ssd")]
    with pytest.raises(AnalysisError, match=r"noise of 3x40x56 and 3x32x40 is not the same image\n  hint: --set input"):
        pair(networks_with_images(specs, count=4))
    with pytest.raises(AnalysisError, match=r"compares two networks, not 1"):
        pair(networks_with_images(specs[:1], count=4))
    picture(tmp_path / "a.png", 9)
    first, second = pair(networks_with_images(specs, count=4, data=str(tmp_path)))
    assert first.batches[0].shape != second.batches[0].shape
