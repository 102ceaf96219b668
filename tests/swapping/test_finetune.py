"""Answers that are fine-tuned, what they stand beside, and the report."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import RunError
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.baselines import drawn, skip_alone, uniform
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.finetune import tuning_of
from blockforge.swapping.others import narrower, shallower
from blockforge.swapping.ties import Refused, Ties
from blockforge.train import fit
from blockforge.train.loop import Trainer

NET: dict[str, Any] = {
    "blockforge": 1,
    "name": "small",
    "input": {"channels": 1, "size": 8},
    "defaults": {"norm": "layer_norm"},
    "blocks": {"b": [{"op": "dwconv"}, {"op": "mlp", "mlp_ratio": 2}]},
    "stem": {"op": "patch_embed", "patch": 2},
    "stages": [{"dim": 16, "depth": 4, "layers": "b"}],
    "head": {"op": "classifier", "pool": "avg"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run, and its data."""
    folder = tmp_path_factory.mktemp("parent")
    rng, labels = np.random.default_rng(0), np.arange(96) % 3
    images = rng.integers(0, 100, (96, 8, 8), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 120
    parts = {f"{x}_{part}": v for part in ("train", "val", "test") for x, v in (("x", images), ("y", labels))}
    np.savez(folder / "d.npz", classes=np.array(["a", "b", "c"]), **parts)
    data = f"npz:{folder / 'd.npz'}"
    fit(NET, data, {"epochs": 5, "batch_size": 16, "lr": 0.01}, out=folder / "run")
    return folder / "run", data


def test_other_combinations_keep_the_budget() -> None:
    arch = bf.compile(written_out(bf.load(NET, {"num_classes": 3})))
    found = list(alternatives_of(arch, arch.source))
    whole = {a.slot.name: arch.nodes[a.slot.name].costs.macs for a in found}
    scores = [float(i % 7) for i in range(len(found))]
    last = [i for i, a in enumerate(found) if a.is_skip]
    ties = Ties((Refused(tuple(last)),))
    for share in (0.9, 0.6, 0.3):
        least = {"macs": arch.macs * (1 - share)}
        picks = {
            "uniform": uniform(found, whole, least, ties),
            "skip": skip_alone(found, scores, least, ties),
            **{str(seed): drawn(found, least, seed, ties) for seed in range(3)},
        }
        for way, chosen in picks.items():
            assert chosen is not None, way
            assert not set(last) <= set(chosen)
            assert len({found[i].slot for i in chosen}) == len(chosen)
            assert bf.compile(edited(arch.source, [found[i] for i in chosen])).macs <= arch.macs * share
        assert all(found[i].is_skip for i in picks["skip"] or ())
        if share > 0.5:
            assert not any(found[i].is_skip for i in picks["uniform"] or ())
    assert drawn(found, {"macs": arch.macs}, 0) is None
    assert uniform(found, whole, {"macs": arch.macs}) is None
    macs = arch.macs // 2
    for cut, depth in ((narrower(arch, macs), 4), (shallower(arch, macs), 1)):
        assert cut is not None
        assert (cut.depth, cut.macs <= macs) == (depth, True)
    assert shallower(arch, 10) is None


def test_from_the_command_line_with_controls(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuned answers beside all others; the same command finds everything done."""
    run, data = trained
    command = ["swap", str(run / "spec.yaml"), "--weights", str(run / "best.safetensors"), "--data", data]
    command += ["--budget", "50%", "--images", "32", "--out", str(tmp_path / "out"), "--finetune", "40%", "--controls"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "9 slots, " in said
    assert "fine-tuning an answer: about " in said
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    assert "test top-1" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out/beside.csv").read_text().splitlines()))
    scratch = [f"{cut}, from scratch{by}" for cut in ("narrower", "shallower") for by in ("", ", with distillation")]
    ways = ["parent", "choice", "uniform thinning", "skip alone", "random 1", "random 2", *scratch]
    assert [row["way"] for row in rows] == ways
    assert all(float(row["test_top1"]) > 20 and float(row["ms"]) > 0 for row in rows)
    tuned = bf.load_model(tmp_path / "out/50pct")
    found = bf.load_model(tmp_path / "out/50pct/finetune").arch
    assert tuned.arch.hash == found.hash
    assert len((tmp_path / "out/50pct/finetune/log.csv").read_text().splitlines()) == 1 + 2  # 40% of 5 epochs
    page = (tmp_path / "out/report.html").read_text()
    assert "What each slot is worth" in page
    assert (tmp_path / "out/answers.png").stat().st_size > 5000
    assert "<svg" in (tmp_path / "out/50pct/changes.svg").read_text()
    weights = (tmp_path / "out/50pct/model.safetensors").read_bytes()
    monkeypatch.setattr("blockforge.train.loop.Trainer._epoch", None)
    assert main(command) == 0
    assert (tmp_path / "out/50pct/model.safetensors").read_bytes() == weights


def test_fine_tuning_starts_from_the_weights_and_the_better_stays(trained: tuple[Path, str]) -> None:
    run, data = trained
    where = {"weights": run / "best.safetensors", "images": 32}
    still = {"epochs": 1, "batch_size": 96, "lr": 1e-12, "weight_decay": 0.0}
    plain = bf.swap(run / "spec.yaml", data, "60%", **where).answers[0]
    tuned = bf.swap(run / "spec.yaml", data, "60%", **where, finetune="1", recipe=still).answers[0]
    assert plain.tested is None
    assert tuned.tested is not None
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(tuned.model.state_dict()[name], tensor, rtol=0, atol=1e-6)


def test_lengths_that_are_none(trained: tuple[Path, str], tmp_path: Path) -> None:
    run, data = trained
    assert tuning_of("40%", run / "best.safetensors").recipe.epochs == 2
    assert tuning_of("40%", run / "best.safetensors").recipe.lr == 0.005
    assert tuning_of("7", None).recipe.epochs == 7
    with pytest.raises(RunError, match=r"'20' %|'x' is no length of a training\n  hint: 20%"):
        tuning_of("x", None)
    with pytest.raises(RunError, match=r"no run.json lies beside its weights\n  hint: --finetune 3"):
        tuning_of("20%", tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"controls are trained as long as the parent.*\n  hint: --finetune 20%"):
        bf.swap(run / "spec.yaml", data, "60%", weights=run / "best.safetensors", controls=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_labels_the_networks_agreement_is_told(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Where the images are of other classes."""
    run, data = trained
    arrays = dict(np.load(data.removeprefix("npz:")))
    np.savez(tmp_path / "d.npz", **{**arrays, "classes": np.array(["x", "y", "z"])})
    where = {"weights": run / "best.safetensors", "images": 32, "out": tmp_path / "out"}
    found = bf.swap(run / "spec.yaml", f"npz:{tmp_path / 'd.npz'}", "60%", finetune="1", **where)
    (answer,) = found.answers
    assert answer.model.classes == ("a", "b", "c")
    assert answer.tested is not None
    assert answer.tested.top1 is None
    assert answer.tested.agreement > 50
    assert "agreement with the parent on the test images" in (tmp_path / "out/report.html").read_text()


def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    other = bf.build(NET, {"stages.0.dim": 24}, num_classes=3, seed=0)
    bf.save_model(other, tmp_path / "other")
    spec, weights = str(run / "spec.yaml"), str(run / "best.safetensors")
    for spec_file, file, source, budget, said in (
        (spec, str(tmp_path / "other/model.safetensors"), data, "50%", "the weights do not fit the network's"),
        (spec, str(tmp_path / "none.safetensors"), data, "50%", "no weights at"),
        (spec, weights, f"imagefolder:{tmp_path / 'none'}", "50%", "there is no folder"),
        (spec, weights, data, "1%", "the smallest network has"),
    ):
        command = ["swap", spec_file, "--weights", file, "--data", source, "--budget", budget]
        assert main([*command, "--out", str(tmp_path / "out")]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_fine_tuning_that_was_stopped_goes_on(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the same bits; with other data it does not."""
    run, data = trained
    command = ["swap", str(run / "spec.yaml"), "--weights", str(run / "best.safetensors"), "--data", data]
    command += ["--budget", "50%", "--images", "32", "--finetune", "40%", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    epoch = Trainer._epoch

    def ends(trainer: Trainer, interrupts: Any) -> int | None:
        return epoch(trainer, interrupts) or signal.SIGINT

    monkeypatch.setattr(Trainer, "_epoch", ends)
    assert main([*command, str(tmp_path / "parts")]) == 130
    monkeypatch.undo()
    assert main([*command, str(tmp_path / "parts")]) == 0
    one, two = ((tmp_path / name / "50pct/model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == two
    arrays = dict(np.load(data.removeprefix("npz:")))
    np.savez(tmp_path / "d.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    capsys.readouterr()
    command[command.index(data)] = f"npz:{tmp_path / 'd.npz'}"
    assert main([*command, str(tmp_path / "parts")]) == 1
    assert "50pct/finetune holds another run:\n  data.train_digest: " in capsys.readouterr().err
