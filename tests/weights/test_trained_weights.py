"""Weights as trainers write them: wrapped, averaged, compiled, sharded, and beside much else."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import blockforge as bf
from blockforge.cli import main

SPEC = "specs/narrow/swin.yaml"
ROOT = Path(__file__).parents[2]
NAME = "stem.0.weight"
State = dict[str, Any]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return bf.build(ROOT / SPEC, seed=0)


def pre(prefix: str, state: State) -> State:
    return {prefix + k: v for k, v in state.items()}


def inside(state: State, before: str, infix: str) -> State:
    return {k.replace(before, before + infix, 1): v for k, v in state.items()}


def other(state: State) -> State:
    """Weights that must not be taken."""
    return {k: v + 1 for k, v in state.items()}


def optimizer(state: State) -> State:
    """State of an optimiser by numbers, and as FSDP writes it, by names."""
    by_name = {k: {"exp_avg": v, "step": torch.ones(())} for k, v in state.items()}
    return {"state": {0: {"exp_avg": torch.ones(3)}, **by_name}, "param_groups": [{"lr": 0.1, "params": [0]}]}


ONE: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "lightning": lambda s: {"state_dict": {**pre("model.", s), "criterion.weight": torch.ones(3)}, "epoch": 3},
    "lightning, attribute net": lambda s: {"state_dict": pre("net.", s), "optimizer_states": [optimizer(s)]},
    "lightning, an attribute of its own": lambda s: {
        "state_dict": {**pre("vision.", s), "loss.centers": torch.ones(3)}
    },
    "lightning and DDP": lambda s: {"state_dict": pre("model.module.", s)},
    "timm, only EMA": lambda s: {"state_dict_ema": s, "arch": "swin"},
    "deit, only EMA": lambda s: {"model_ema": s, "args": argparse.Namespace(lr=0.1, path=pathlib.PosixPath("a"))},
    "EMA in a list": lambda s: {"ema": [{"state_dict": pre("module.", s)}]},
    "ema_pytorch": lambda s: {**pre("ema_model.", s), **pre("online_model.", other(s)), "step": torch.ones(())},
    "lightning, EMA beside": lambda s: {"state_dict": {**pre("model.", other(s)), **pre("model_ema.", s)}},
    "bare, EMA beside": lambda s: {**other(s), **pre("ema.", s)},
    "DINO": lambda s: {"student": pre("module.backbone.", other(s)), "teacher": pre("backbone.", s)},
    "mmengine": lambda s: {"state_dict": pre("backbone.", other(s)), "ema_state_dict": pre("module.backbone.", s)},
    "a detector": lambda s: {
        "model": {**pre("backbone.", s), "neck.conv.weight": torch.ones(3), "rpn.b": torch.ones(1)}
    },
    "compiled": lambda s: pre("_orig_mod.", s),
    "compiled and DDP": lambda s: pre("module._orig_mod.", s),
    "layers compiled one by one": lambda s: inside(s, "layers.0.", "_orig_mod."),
    "FSDP": lambda s: inside(pre("_fsdp_wrapped_module.", s), "stages.1.", "_fsdp_wrapped_module."),
    "checkpoint wrapper": lambda s: {"model": inside(s, "layers.0.", "_checkpoint_wrapped_module.")},
    "layers in DDP": lambda s: inside(s, "layers.0.", "module."),
    "composer": lambda s: {"state": {"model": pre("module.", s), "optimizers": {"AdamW": optimizer(s)}}},
    "deepspeed": lambda s: {"module": s, "optimizer": optimizer(s), "lr_scheduler": {"a": torch.ones(2)}},
    "encoder": lambda s: {"net": {**pre("encoder.", s), "decoder.weight": torch.ones(3)}},
    "a key of its own": lambda s: {"best": s, "accuracy": np.float64(0.5), "hits": np.int64(3)},
    "three wrappers": lambda s: {"checkpoint": {"model": {"state_dict": s}}},
    "half": lambda s: {"model": {k: v.half() if v.is_floating_point() else v for k, v in s.items()}},
    "both": lambda s: {"model": other(s), "model_ema": s},
    "both, inside": lambda s: {"models": {"model": other(s), "ema": pre("module.", s)}},
    "averaged": lambda s: {"state_dict": other(s), "averaged_state_dict": s},
    "SWA beside, with its counter": lambda s: {
        "state_dict": {**pre("model.", other(s)), **pre("swa.module.", s), "swa.n_averaged": torch.tensor(3)}
    },
    "both, ema_pytorch": lambda s: {
        "model": other(s),
        "ema": {**pre("ema_model.", s), **pre("online_model.", other(s)), "step": torch.ones(())},
    },
    "both, in a callback": lambda s: {
        "state_dict": pre("model.", other(s)),
        "callbacks": {"EMA{'decay': 0.9}": {"ema_state_dict": pre("model.", s)}},
    },
    "both, deep inside": lambda s: {
        "state": {"model": pre("module.", other(s)), "algorithms": [("EMA", {"ema_model": {"named": {"all": s}}})]}
    },
    "both, polyak": lambda s: {"model": other(s), "polyak": s},
    "both, avg": lambda s: {"weights": other(s), "weights_avg": s},
}


@pytest.mark.parametrize("form", ONE)
def test_the_right_weights_are_found(model: nn.Module, form: str, tmp_path: Path, capsys: Any) -> None:
    state = model.state_dict()
    torch.save(ONE[form](state), tmp_path / "c.pth")
    fresh = bf.build(SPEC, seed=1)
    bf.load_weights(fresh, tmp_path / "c.pth")
    atol = 1e-3 if form == "half" else 0
    for name, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=atol, atol=atol)
    said = capsys.readouterr().err.splitlines()
    assert len(said) <= 1
    if any(word in form.lower() for word in ("beside", "both", "dino", "mmengine", "ema_pytorch")):
        assert "c.pth: took the moving average (--" in said[0]
        assert ", not the raw weights (" in said[0]


@pytest.mark.parametrize("place", ["ema.shadow_params", "callbacks.EMA.ema_weights"])
def test_an_average_without_names_is_told(model: nn.Module, place: str, tmp_path: Path, capsys: Any) -> None:
    kept: Any = list(other(model.state_dict()).values())
    for key in reversed(place.split(".")):
        kept = {key: kept}
    torch.save({"state_dict": model.state_dict(), **kept}, tmp_path / "c.pth")
    bf.load_weights(fresh := bf.build(SPEC, seed=1), tmp_path / "c.pth")
    assert torch.equal(fresh.state_dict()[NAME], model.state_dict()[NAME])
    said = capsys.readouterr().err
    assert f"took the raw weights: the moving average at the key {place} is a list of tensors without names" in said


def test_an_averaged_model_of_torch(model: nn.Module, tmp_path: Path, capsys: Any) -> None:
    torch.save(AveragedModel(model).state_dict(), tmp_path / "c.pth")
    fresh = bf.build(SPEC, weights=tmp_path / "c.pth", seed=1)
    assert torch.equal(fresh.state_dict()[NAME], model.state_dict()[NAME])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("form", "key", "prefix"),
    [
        ({"model": 0, "model_ema": 1}, "model", None),
        ({"a": {"model": 0}, "b": {"model": 1}}, "a", None),
        ({"a": {"model": 0}, "b": {"model": 1}}, "a.model", None),
        ({"a.b": 0, "b": 1}, "a.b", None),
        ({"model": "encoder_q.", "also": "encoder_k."}, None, "encoder_q"),
        ({"model": "generator.", "also": "critic."}, None, "generator."),
        ({"model": "module.generator.", "also": "critic."}, None, "generator."),
    ],
)
def test_key_and_prefix_say_which(
    model: nn.Module, form: State, key: str | None, prefix: str | None, tmp_path: Path
) -> None:
    state = model.state_dict()
    sides: list[Any] = [state, other(state)]

    def filled(value: Any) -> Any:
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else sides[value]

    checkpoint = pre(form["model"], state) | pre(form["also"], other(state)) if "also" in form else filled(form)
    torch.save(checkpoint, tmp_path / "c.pth")
    given = bf.Weights(tmp_path / "c.pth", key, prefix)
    fresh = bf.build(SPEC, weights=given, seed=1)
    assert torch.equal(fresh.state_dict()[NAME], state[NAME])
    bf.load_weights(fresh, tmp_path / "c.pth", key=key, prefix=prefix)


WRONG: dict[str, tuple[Callable[[State], Any], dict[str, str], str]] = {
    "two networks": (
        lambda s: {"generator": s, "critic": other(s)},
        {},
        r"holds 2 networks\n  hint: say which: --key generator; --key critic",
    ),
    "two prefixes": (
        lambda s: {**pre("left.", s), **pre("right.", s)},
        {},
        r"holds 2 networks\n  hint: say which: --prefix left\.; --prefix right\.",
    ),
    "no such key": (lambda s: {"model": s}, {"key": "modle"}, r"no weights at the key 'modle'; did you mean 'model'\?"),
    "no such prefix": (
        lambda s: {"model": s},
        {"prefix": "stem2."},
        r"no name begins with 'stem2\.'; did you mean 'stem'",
    ),
    "no tensors": (lambda s: {"epoch": 3}, {}, r"holds no tensors; its keys: epoch"),
    "unknown": (lambda s: {"model": {"a.b": torch.ones(2)}}, {}, r"no known layout .*\n  hint: --prefix P takes"),
    "NaN": (lambda s: {**s, NAME: s[NAME] * float("nan")}, {}, rf"{NAME}: \d+ of its \d+ values are NaN"),
    "infinite": (lambda s: {**s, NAME: s[NAME] / 0}, {}, rf"{NAME}: \d+ of its \d+ values are infinite"),
    "int8": (lambda s: {**s, NAME: s[NAME].to(torch.int8)}, {}, rf"{NAME} holds int8\n  hint: a quantised checkpoint"),
    "float8": (lambda s: {**s, NAME: s[NAME].to(torch.float8_e4m3fn)}, {}, rf"{NAME} holds float8_e4m3fn"),
    "complex": (lambda s: {**s, NAME: s[NAME].to(torch.complex64)}, {}, rf"{NAME} is complex \(complex64\)"),
    "sparse": (lambda s: {**s, NAME: s[NAME].to_sparse()}, {}, rf"{NAME} is sparse \(sparse_coo\)"),
    "quantised": (
        lambda s: {**s, NAME: torch.quantize_per_tensor(s[NAME], 0.1, 0, torch.qint8)},
        {},
        rf"{NAME} is quantised \(qint8\)",
    ),
    "meta": (lambda s: {**s, NAME: s[NAME].to("meta")}, {}, rf"{NAME} is on the meta device"),
    "nested": (lambda s: {**s, NAME: torch.nested.nested_tensor([s[NAME][0], s[NAME][1]])}, {}, rf"{NAME} is nested"),
    "too large": (lambda s: {**s, NAME: s[NAME].double() + 1e300}, {}, rf"{NAME}: \d+ .* values are beyond float32"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_taken_is_named(model: nn.Module, case: str, tmp_path: Path) -> None:
    make, given, message = WRONG[case]
    torch.save(make(model.state_dict()), tmp_path / "c.pth")
    fresh = bf.build(SPEC, seed=1)
    before = fresh.state_dict()[NAME].clone()
    with pytest.raises(bf.WeightsError, match=rf"c\.pth: .*{message}"):
        bf.load_weights(fresh, tmp_path / "c.pth", **given)
    assert torch.equal(fresh.state_dict()[NAME], before)


def test_official_values_are_looked_at_too() -> None:
    from blockforge.weights.family import FAMILIES

    small = {"input.size": 32, "num_classes": 3, **{f"stages.{i}.depth": 1 for i in range(4)}, "stages.0.dim": 24}
    state = bf.build("resnet50", {**small, "stages.0.dim": 256}, seed=0).state_dict()
    sources = FAMILIES["resnet"].sources
    official = {names[0]: v for k, v in state.items() if (names := sources(k))}
    official["conv1.weight"] = official["conv1.weight"] * float("nan")
    with pytest.raises(bf.WeightsError, match=r"conv1\.weight: \d+ of its \d+ values are NaN"):
        bf.from_official("resnet50", {"model": official}, {**small, "stages.0.dim": 256})


def _shards(folder: Path, state: State, form: str) -> Path:
    names = sorted(state)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    files = [f"part-{i}.{form}" for i in range(2)]
    for file, half in zip(files, halves, strict=True):
        part = {k: state[k].contiguous() for k in half}
        save_file(part, folder / file) if form == "safetensors" else torch.save(part, folder / file)
    index = folder / f"model.{form}.index.json"
    index.write_text(json.dumps({"weight_map": {k: f for f, half in zip(files, halves, strict=True) for k in half}}))
    return index


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_sharded_checkpoints(model: nn.Module, form: str, tmp_path: Path) -> None:
    index = _shards(tmp_path, model.state_dict(), form)
    fresh = bf.build(SPEC, weights=index, seed=1)
    assert torch.equal(fresh.state_dict()[NAME], model.state_dict()[NAME])
    (tmp_path / f"part-1.{form}").unlink()
    with pytest.raises(bf.WeightsError, match=rf"index\.json names part-1\.{form}, which is not beside it"):
        bf.build(SPEC, weights=index)
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(bf.WeightsError, match="names a file of another folder"):
        bf.build(SPEC, weights=index)
    index.write_text("[]")
    with pytest.raises(bf.WeightsError, match="is not the index of a sharded checkpoint"):
        bf.build(SPEC, weights=index)


def test_a_format_is_told_by_its_content(model: nn.Module, tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, tmp_path / "a.bin")
    np.savez(tmp_path / "b.npz", **{k: v.numpy() for k, v in state.items()})
    torch.save(state, tmp_path / "c.ckpt")
    torch.save(state, tmp_path / "d.pt", _use_new_zipfile_serialization=False)
    for name in ("a.bin", "b.npz", "c.ckpt", "d.pt"):
        fresh = bf.build(SPEC, weights=tmp_path / name, seed=1)
        assert torch.equal(fresh.state_dict()[NAME], state[NAME])
    for content, what in (
        (b"version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer.*\n  hint: git lfs pull"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
    ):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(bf.WeightsError, match=what):
            bf.build(SPEC, weights=tmp_path / "x.pth")
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(bf.WeightsError, match=r"o\.npz cannot be read: Object arrays"):
        bf.build(SPEC, weights=tmp_path / "o.npz")


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(bf.WeightsError, match="holds a TorchScript program, not weights"):
        bf.build(SPEC, weights=tmp_path / "x.pt")


@pytest.mark.parametrize("command", ["build", "eval", "train", "export", "convert", "analyze"])
def test_every_command_takes_key_and_prefix(
    model: nn.Module, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.pth"
    checkpoint: dict[str, Tensor] = {"a": pre("left.", model.state_dict()), "b": model.state_dict()}  # type: ignore[dict-item]
    torch.save(checkpoint, file)
    out = tmp_path / "out"
    argv = {
        "build": ["build", SPEC, "-o", str(out)],
        "eval": ["eval", SPEC, "--data", "digits"],
        "train": ["train", SPEC, "--data", "digits", "--epochs", "1", "--recipe-set", "lr=1e-9", "--out", str(out)],
        "export": ["export", SPEC, "--format", "export", "-o", str(tmp_path / "x.pt2")],
        "convert": ["convert", str(file), "-o", str(tmp_path / "x.safetensors")],
        "analyze": ["analyze", "erf", SPEC, "--images", "1", "-o", str(out)],
    }[command]
    given = [] if command == "convert" else ["--weights", str(file)]
    assert main([*argv, *given]) == 1
    assert "say which: --key a --prefix left.; --key b" in capsys.readouterr().err
    assert main([*argv, *given, "--key", "a", "--prefix", "left."]) == (1 if command == "convert" else 0)
    if command == "convert":
        assert "these are our names already" in capsys.readouterr().err
    else:
        assert main([*argv, "--key", "a"]) == 2
        assert "of --weights FILE" in capsys.readouterr().err or command == "eval"
