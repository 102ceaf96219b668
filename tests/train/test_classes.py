"""Weights know their classes: what is evaluated is found by name, never by position."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import blockforge as bf
from blockforge.cli import main
from blockforge.integrations.hub import config
from blockforge.train import Data, DataError, evaluate, fit, open_data
from blockforge.train.classes import labels_by_name

LOOKS = {"a": 0, "b": 1, "c": 2, "d": 0}
"""Which channel of a class's images is bright."""
Images = Callable[..., str]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """`images("b", "c", b="x")`: image folders of these classes, as a source; that of b has another name."""

    def make(*classes: str, **names: str) -> str:
        rng, root = np.random.default_rng(0), tmp_path / "_".join([*classes, *names.values()])
        for split in ("train", "val"):
            for name in classes:
                folder = root / split / names.get(name, name)
                folder.mkdir(parents=True, exist_ok=True)
                for k in range(6):
                    image = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
                    image[..., LOOKS[name]] += 150
                    Image.fromarray(image).save(folder / f"{k}.png")
        return f"imagefolder:{root}?test=none"

    return make


@pytest.fixture
def run(net: Any, images: Images, tmp_path: Path) -> Path:
    """A run that tells a, b and c apart."""
    spec = {**net, "input": {"channels": 3, "size": 8}}
    recipe = {"epochs": 12, "batch_size": 6, "lr": 0.02, "workers": 0}
    assert fit(spec, images("a", "b", "c"), recipe, out=tmp_path / "run").final == 100
    return tmp_path / "run"


def _eval(run: Path, data: Data | str, file: str = "model.safetensors", **options: Any) -> Any:
    return evaluate(run / "spec.yaml", data, weights=run / file, **options)


@pytest.mark.parametrize("file", ["model.safetensors", "best.safetensors"])
@pytest.mark.parametrize("classes", ["abc", "bc", "ca", "b"])
def test_a_part_of_the_classes_is_scored_by_name(run: Path, images: Images, file: str, classes: str) -> None:
    found = _eval(run, images(*classes), file)
    assert found.top1 == 100
    assert found.classes == ("a", "b", "c")
    rows = [list(row) for row in found.confusion.tolist()]
    assert [sum(row) for row in rows] == [6 * (name in classes) for name in "abc"]


def test_unknown_classes_are_refused_with_a_list(run: Path, images: Images) -> None:
    hint = r"\n  hint: .*its classes: a, b, c; --class-map"
    message = rf"model\.safetensors has 3 classes, .* has 3, of which it does not know 1: 'd'{hint}"
    with pytest.raises(DataError, match=message):
        _eval(run, images("b", "c", "d"))
    with pytest.raises(DataError, match=r"has 2, of which it does not know 1: 'd'"):
        _eval(run, images("c", "d"))


def test_the_order_of_the_classes_decides_nothing(run: Path, images: Images) -> None:
    data = open_data(images("a", "b", "c"))
    other = [2, 0, 1]

    class Turned:
        crops = True

        def __len__(self) -> int:
            return len(data.val)

        def batches(self, want: Any) -> Any:
            return ((x, torch.tensor(other)[y]) for x, y in data.val.batches(want))

        def statistics(self, channels: int | None = None) -> None:
            return None

        def digest(self) -> str:
            return "turned"

    turned = Data("turned", ("b", "c", "a"), Turned(), Turned())
    assert _eval(run, turned).top1 == 100


def test_names_come_from_the_file_or_from_the_run_beside_it(run: Path, images: Images, tmp_path: Path) -> None:
    state = bf.load_model(run).state_dict()
    save_file(state, run / "plain.safetensors")  # as runs wrote them before
    assert _eval(run, images("b", "c"), "plain.safetensors").top1 == 100
    torch.save({"model": state}, run / "state.pth")
    assert _eval(run, images("b", "c"), "state.pth").top1 == 100
    model = bf.load_model(run)
    assert model.classes == ("a", "b", "c")
    assert evaluate(model, images("b", "c")).top1 == 100
    bf.save_model(model, tmp_path / "saved")
    assert bf.load_model(tmp_path / "saved").classes == ("a", "b", "c")
    assert config(model)["label_names"] == ["a", "b", "c"]
    import copy
    import pickle

    assert copy.deepcopy(model).classes == pickle.loads(pickle.dumps(model)).classes == model.classes
    model.reset_classifier(4)
    assert model.classes is None


def test_weights_without_names_are_taken_in_order_and_that_is_said(
    run: Path, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone").mkdir()
    file = tmp_path / "alone" / "w.safetensors"
    save_file(bf.load_model(run).state_dict(), file)
    capsys.readouterr()
    assert evaluate(run / "spec.yaml", images("a", "b", "c"), weights=file).top1 == 100
    assert "warning: " in (said := capsys.readouterr().err)
    assert "does not say its classes: label 0 'a', 1 'b', 2 'c' is assumed" in said
    with pytest.raises(DataError, match=r"has 3 classes, .* has 2, and the weights do not say .*\n  hint: --class-map"):
        evaluate(run / "spec.yaml", images("b", "c"), weights=file)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert evaluate(run / "spec.yaml", images("b", "c"), weights=file, class_map=tmp_path / "names.txt").top1 == 100
    assert "warning" not in capsys.readouterr().err


def test_a_class_map_gives_other_names(run: Path, images: Images, tmp_path: Path, capsys: Any) -> None:
    source = images("b", "c", b="berry", c="cherry")
    names = tmp_path / "names.txt"
    names.write_text("apple\nberry\ncherry\n")
    argv = ["eval", str(run / "spec.yaml"), "--weights", str(run / "model.safetensors"), "--data", source]
    assert main([*argv, "--class-map", str(names), "--confusion", str(tmp_path / "c.csv")]) == 0
    assert "top-1 100.00" in capsys.readouterr().out
    assert (tmp_path / "c.csv").read_text().splitlines()[0] == "true \\ predicted,apple,berry,cherry"
    for text, message in (
        ("apple\nberry\n", "names.txt has 2 names, 2 of them different; the network has 3 classes"),
        ("x\nx\ny\n", "names.txt has 3 names, 2 of them different"),
    ):
        names.write_text(text)
        assert main([*argv, "--class-map", str(names)]) == 1
        assert message in capsys.readouterr().err
    assert main([*argv, "--class-map", str(tmp_path / "none.txt")]) == 1
    assert "none.txt is not readable: no such file" in capsys.readouterr().err


def _named(*classes: str, named: bool = True) -> Data:
    split: Any = None
    return Data("data", classes, split, split, named)


def test_labels_without_names(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = _named("0", "1", "2", named=False)
    assert labels_by_name(("0", "1", "2", "3"), numbers, 4, "net") == [0, 1, 2]
    assert not capsys.readouterr().err
    assert labels_by_name(("a", "b", "c"), numbers, 3, "net") == [0, 1, 2]
    assert "labels without names: they are taken for those of net, 0 'a', 1 'b', 2 'c'" in capsys.readouterr().err
    assert labels_by_name(None, numbers, 5, "net") == [0, 1, 2]
    with pytest.raises(DataError, match="data has 3 classes, net has 2"):
        labels_by_name(("a", "b"), numbers, 2, "net")
    with pytest.raises(DataError, match="which is which cannot be told"):
        labels_by_name(("0", "1", "10", "2"), numbers, 4, "net")
    with pytest.raises(DataError, match="net has 2 classes, data has 2, of which it does not know 2: 'a', 'b'"):
        labels_by_name(("0", "1"), _named("a", "b"), 2, "net")


def test_names_are_compared_as_text() -> None:
    assert labels_by_name(("x", "caf\u00e9"), _named("cafe\u0301", "x"), 2, "net") == [1, 0]


def test_finetuning_onto_other_classes_says_that_the_classifier_is_new(
    net: Any, run: Path, images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {**net, "input": {"channels": 3, "size": 8}}
    still = {"epochs": 1, "batch_size": 12, "lr": 1e-12, "weight_decay": 0.0, "workers": 0}
    trained = bf.load_model(run).head.fc.weight
    capsys.readouterr()
    same = fit(spec, images("a", "b", "c"), still, weights=run / "model.safetensors").model
    assert torch.allclose(same.head.fc.weight, trained, atol=1e-6)
    assert "classifier" not in capsys.readouterr().err
    for classes in ("bcd", "bc"):
        other = fit(spec, images(*classes), still, weights=run / "model.safetensors").model
        assert not torch.allclose(other.head.fc.weight, trained[: len(classes)], atol=1e-3)
        assert other.classes == tuple(classes)
        said = capsys.readouterr().err
        assert f"was trained on 0 'a', 1 'b', 2 'c': the classifier for the {len(classes)} here is a new one" in said


def test_other_numbers_of_classes_fit_what_the_hint_says(run: Path, images: Images) -> None:
    with pytest.raises(bf.WeightsError, match=r"with 3 classes: set num_classes=3"):
        _eval(run, images("b", "c"), overrides={"num_classes": 2})
    assert _eval(run, images("b", "c"), overrides={"num_classes": 3}).top1 == 100


def test_a_spec_that_says_no_classes_takes_those_of_the_weights(net: Any, run: Path, images: Images) -> None:
    spec = {**net, "input": {"channels": 3, "size": 8}}
    assert evaluate(spec, images("b", "c"), weights=run / "model.safetensors").top1 == 100


def test_the_header_holds_the_names_and_equal_weights_are_equal_bytes(run: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(run / "model.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["blockforge_classes"]) == ["a", "b", "c"]
    bf.save_model(bf.load_model(run), tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
