"""Folders as people have them: links, companions, odd names, things that are no images."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blockforge.analyze import open_images
from blockforge.train import Data, DataError, check_data, open_data
from blockforge.train.data import Want
from blockforge.train.images import ImageSplit, Reader


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with five different images each in train and in val."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for k in range(5):
                image = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
                image.save(tmp_path / "d" / split / name / f"{k}.png")
    return tmp_path / "d"


def _open(root: Path, **options: Any) -> Data:
    return open_data(f"imagefolder:{root}?test=none", **options)


def _files(data: Data) -> list[tuple[str, int]]:
    """The training images below train, with their labels."""
    assert isinstance(data.train, ImageSplit)
    reader: Any = data.train.reader
    return [(path.relative_to(reader.root / "train").as_posix(), label) for path, label in reader.files]


PLAIN = [(f"{name}/{k}.png", label) for label, name in enumerate("ab") for k in range(5)]


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../..", "/", "../b", "../../val/a", "loop"])
def test_no_link_leads_to_other_images_twice_or_to_another_label(root: Path, target: str) -> None:
    (root / "train" / "a" / "loop").symlink_to(target)
    assert _files(_open(root)) == PLAIN
    (root / "loop").symlink_to(".")
    assert len(open_images(str(root), _model(), count=100, batch_size=100)) == 20


def _model() -> Any:
    import blockforge as bf

    return bf.build(Path(__file__).parents[1] / "specs" / "attention.yaml", {"input.size": 32}, seed=0)


def test_a_link_to_images_elsewhere_is_followed_once(root: Path, tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    Image.new("L", (9, 9), 7).save(tmp_path / "more" / "deep" / "x.png")
    (tmp_path / "more" / "back").symlink_to(root / "train" / "b")
    for name in ("a/one", "a/two", "b/three"):
        (root / "train" / name).symlink_to(tmp_path / "more")
    assert [f for f in _files(_open(root)) if f not in PLAIN] == [("a/one/deep/x.png", 0)]


def test_a_link_into_another_class_takes_nothing_away_from_it(root: Path) -> None:
    (root / "train" / "b" / "more").mkdir()
    (root / "train" / "b" / "0.png").rename(root / "train" / "b" / "more" / "0.png")
    (root / "train" / "a" / "link").symlink_to("../b/more")
    found = _files(_open(root))
    assert ("b/more/0.png", 1) in found
    assert len(found) == 10


def test_class_folders_may_be_links_and_no_two_the_same(root: Path, tmp_path: Path) -> None:
    (root / "train" / "b").rename(tmp_path / "b")
    (root / "train" / "b").symlink_to(tmp_path / "b")
    assert _files(_open(root)) == PLAIN
    (root / "train" / "c").symlink_to(tmp_path / "b")
    with pytest.raises(DataError, match=r"train/c and .*train/b are the same class"):
        _open(root)


def test_hidden_files_and_folders_are_left_out_and_counted(root: Path) -> None:
    (root / "train" / "a" / "._0.png").write_bytes(b"\0\5\x16\7" + bytes(80))
    (root / "train" / "a" / ".thumbs").mkdir()
    Image.new("L", (4, 4)).save(root / "train" / "a" / ".thumbs" / "x.png")
    (root / "train" / ".cache").mkdir()
    data = _open(root)
    assert _files(data) == PLAIN
    assert data.notes == ("1 images whose names begin with a dot are left out",)


def test_what_is_no_image_is_counted_and_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/Thumbs.db", "a/notes.txt", "b/list.txt", "b/README"):
        (root / "train" / name).write_text("x")
    (root / "train" / "0.png").write_bytes((root / "train" / "a" / "0.png").read_bytes())
    (root / "train" / "a" / "0.png").rename(root / "train" / "a" / "0.PNG")
    data = _open(root)
    assert [f.lower() for f, _ in _files(data)] == [f for f, _ in PLAIN]
    assert "4 files that are no images are left out (.txt 2, .db 1, no suffix 1)" in data.notes
    assert any("1 images in" in note and "no class folder" in note for note in data.notes)
    said = capsys.readouterr().err
    assert all(f"note: {data.name}: {note}\n" in said for note in data.notes)


def test_a_folder_named_like_an_image_is_a_folder(root: Path) -> None:
    (root / "train" / "a" / "x.jpg").mkdir()
    (root / "train" / "a" / "0.png").rename(root / "train" / "a" / "x.jpg" / "0.png")
    assert ("a/x.jpg/0.png", 0) in _files(_open(root))


@pytest.mark.parametrize("what", ["pipe", "link to nothing", "link to itself"])
def test_things_named_like_images_are_told_before_the_first_step(root: Path, what: str) -> None:
    path = root / "train" / "a" / "bad.jpg"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("bad.jpg" if what.endswith("itself") else "nowhere")
    with pytest.raises(DataError, match=r"1 is wrong\n  .*train/a/bad\.jpg: .*\n  hint: blockforge data check"):
        _open(root)
    data = _open(root, skip_broken=True)
    assert _files(data) == PLAIN
    assert [problem.where for problem in data.problems] == [str(path)]


def test_a_folder_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    (root / "train" / "a" / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"train/a/closed: a folder that cannot be read: permission denied"):
        _open(root)


@pytest.mark.parametrize("name", ["ünï çødé", "with space", "日本", "quote'\"", "-dash", "a\u200dz"])
def test_names_as_people_write_them(root: Path, name: str) -> None:
    for split in ("train", "val"):
        (root / split / "b").rename(root / split / name)
    (root / "train" / name / "0.png").rename(root / "train" / name / f"{name}.png")
    data = _open(root)
    assert set(data.classes) == {"a", name}
    assert sum(f.endswith(f"{name}.png") for f, _ in _files(data)) == 1


def test_names_in_either_form_of_unicode_are_one_class(root: Path) -> None:
    (root / "train" / "b").rename(root / "train" / "caf\u00e9")
    (root / "val" / "b").rename(root / "val" / "cafe\u0301")  # as macOS writes it
    data = _open(root)
    assert data.classes == ("a", "caf\u00e9")
    assert len(data.val) == 10


@pytest.mark.parametrize("name", ["new\nline", os.fsdecode(b"\xff\xfe")])
def test_a_class_whose_name_is_no_text_is_refused(root: Path, name: str) -> None:
    (root / "train" / "b").rename(root / "train" / name)
    with pytest.raises(DataError, match="a class whose name is not text"):
        _open(root)


def test_an_odd_file_name_is_an_image(root: Path) -> None:
    (root / "train" / "a" / "0.png").rename(root / "train" / "a" / os.fsdecode(b"\xff0.png"))
    data = _open(root)
    assert len(data.train) == 10
    assert data.identity() == _open(root).identity()
    assert not check_data(data, workers=0).problems


def test_broken_images_are_left_out_the_same_way_every_time(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train" / "a" / "3.png").write_bytes(b"")
    (root / "val" / "b" / "1.png").write_text("no image")
    data = open_data(f"imagefolder:{root}?skip_broken=true&test=none")
    assert (len(data.train), len(data.val)) == (9, 9)
    said = capsys.readouterr().err
    assert "warning: imagefolder:" in said
    assert "2 broken images or labels are left out\n  " in said
    assert f"{root}/train/a/3.png: is empty" in said
    for path in ("train/a/3.png", "val/b/1.png"):
        (root / path).unlink()
    assert _open(root).identity() == data.identity() == _open(root, skip_broken=True).identity()


def test_a_class_of_broken_images_alone(root: Path) -> None:
    for k in range(5):
        (root / "train" / "a" / f"{k}.png").write_bytes(b"")
        (root / "train" / "b" / f"{k}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of a split can be read; the first: .*a/0\.png: is empty"):
        _open(root, skip_broken=True)


class _Dies:
    """Images whose reading ends the process, as the system does where memory is short."""

    def __len__(self) -> int:
        return 4

    def __call__(self, index: int) -> tuple[Image.Image, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def digest(self) -> str:
        return ""

    def name(self, index: int) -> str:
        return str(index)

    def only(self, rows: Any) -> Reader:
        return self


def test_a_reading_process_that_dies_is_told() -> None:
    with pytest.raises(DataError, match=r"a process that reads images died.*\n  hint: .*workers=0.*--shm-size"):
        list(ImageSplit(_Dies()).batches(Want((8, 8), 3, 2, workers=1)))
