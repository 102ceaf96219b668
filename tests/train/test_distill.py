"""Learning from a trained network: its loss, with and without labels, and as a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import blockforge as bf
from blockforge.cli import main
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.train import Data, DataError, RunError, fit, loop
from blockforge.train.augment import Normalize
from blockforge.train.distill import Teacher, divergence, make_loss
from blockforge.train.recipe import load_recipe

CPU = torch.device("cpu")
LIKE_DATA = Normalize([0.3], [0.2])


def _network(net: Any, seed: int, classes: tuple[str, ...] = ("a", "b", "c")) -> Backbone:
    model = bf.build(net, num_classes=len(classes), seed=seed).eval()
    model.classes = classes
    return model


def test_the_divergence_is_that_of_probabilities() -> None:
    one, other = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = (F.softmax(logits / 3, 1) for logits in (other, one))
    assert float(divergence(one, other, 3.0)) == pytest.approx(9 * float((p * (p / q).log()).sum(1).mean()))
    assert float(divergence(one, one, 3.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_shared_between_teacher_and_labels(net: Any, share: float) -> None:
    recipe = load_recipe({"epochs": 1, "batch_size": 4, "lr": 1.0, "distill": {"share": share, "temperature": 2.0}})
    student, teacher = _network(net, 0), _network(net, 1)
    x, targets = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        y = student(x)
        found = make_loss(recipe, Teacher(teacher), student, LIKE_DATA, CPU)(x, {"head": y}, targets)
        expected = share * divergence(y, teacher(x), 2.0) + (1 - share) * F.cross_entropy(y, targets)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_teacher_sees_images_as_it_was_trained_on_them(net: Any) -> None:
    """Whatever the student's are prepared with."""
    teacher = _network(net, 1)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    its_own = Normalize([0.1], [0.5])
    with torch.no_grad():
        found = Teacher(teacher, its_own).outputs(LIKE_DATA(images), LIKE_DATA)
        torch.testing.assert_close(found, teacher(its_own(images)), rtol=1e-4, atol=1e-5)


def test_answers_alone_make_a_student_agree(net: Any, data: Data, fast: Any) -> None:
    """Of a teacher with other classes, from images whose labels are none of them."""
    teacher = fit(net, dataclasses.replace(data, classes=("u", "v", "w")), fast, epochs=6).model
    with pytest.raises(DataError, match=r"classes are not those of the data: .*\n  hint: .*distill.share=1"):
        fit(net, data, fast, teacher=teacher)
    taught = {**fast, "epochs": 6, "distill": {"share": 1.0}}
    result = fit(net, data, taught, teacher=teacher)
    assert result.model.classes == ("u", "v", "w")
    assert result.final > 80
    images = data.train.only(range(72))  # type: ignore[attr-defined]
    images.labels_B = images.labels_B.flip(0)
    again = fit(net, dataclasses.replace(data, train=images), taught, teacher=teacher)
    assert all(torch.equal(again.weights[k], v) for k, v in result.weights.items()), "labels were used"


def test_labels_are_the_teachers_where_its_classes_stand_in_another_order(net: Any, data: Data, fast: Any) -> None:
    teacher = _network(net, 3, ("c", "a", "b"))
    result = fit(net, data, {**fast, "epochs": 8, "distill": {"share": 0.0}}, teacher=teacher)
    assert result.model.classes == ("c", "a", "b")
    images, labels = data.val.images_BCHW, data.val.labels_B  # type: ignore[attr-defined]
    mean, std = data.train.statistics()  # type: ignore[misc]
    found = result.model.eval()(Normalize(mean, std)(images)).argmax(1)
    assert float((found == (labels + 1) % 3).double().mean()) > 0.9


def test_what_does_not_fit_is_told(net: Any, data: Data, fast: Any) -> None:
    with pytest.raises(RunError, match=r"the recipe says distill, and there is no teacher\n  hint: --teacher DIR"):
        fit(net, data, {**fast, "distill": {"share": 0.5}})
    larger = {**net, "input": {"channels": 1, "size": 16}}
    with pytest.raises(RunError, match="images of other sizes, 1x16x16 and 1x8x8"):
        fit(net, data, fast, teacher=_network(larger, 0))


def test_from_the_command_line_a_run_goes_on_with_its_teacher(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its middle it ends with the same bits; another teacher is refused."""
    bf.save_model(_network(net, 1, tuple("0123456789")), tmp_path / "teacher")
    (tmp_path / "net.yaml").write_text(json.dumps(net))
    run = ["train", str(tmp_path / "net.yaml"), "--data", "digits", "--epochs", "2", "--recipe-set", "batch_size=256"]
    run += ["--recipe-set", "save_seconds=0", "--teacher"]
    whole, parts = (["--out", str(tmp_path / name)] for name in ("whole", "parts"))
    assert main([*run, str(tmp_path / "teacher"), *whole]) == 0
    monkeypatch.setattr(loop.Trainer, "_end_epoch", _stop(loop.Trainer._end_epoch))
    with pytest.raises(_StopError):
        main([*run, str(tmp_path / "teacher"), *parts])
    monkeypatch.undo()
    assert main([*run, str(tmp_path / "teacher"), *parts]) == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other
    bf.save_model(_network(net, 2, tuple("0123456789")), tmp_path / "other")
    capsys.readouterr()
    spec, weights = tmp_path / "other/spec.yaml", tmp_path / "other/model.safetensors"
    assert main([*run, str(spec), "--teacher-weights", str(weights), *parts]) == 1
    assert "holds another run:\n  teacher: " in capsys.readouterr().err
    assert main([*run[:-1], "--teacher-weights", str(weights)]) == 2
    assert main([*run, str(tmp_path / "none"), *parts]) == 1
    assert "no such file or directory" in capsys.readouterr().err


class _StopError(Exception):
    """The lights go out."""


def _stop(end_epoch: Any) -> Any:
    def ended(trainer: Any) -> None:
        end_epoch(trainer)
        if len(trainer.position.history) == 1:
            trainer._save()
            raise _StopError

    return ended
