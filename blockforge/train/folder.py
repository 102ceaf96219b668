"""Images in folders, one a class: ImageNet's layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from blockforge.errors import did_you_mean
from blockforge.train.data import Options, Split, digest_of, hold_out, source, val_share
from blockforge.train.errors import DataError
from blockforge.train.images import ImageSplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
_VAL = ("val", "valid", "validation", "test")
Files = list[tuple[Path, int]]


class FileReader:
    """Image files with their labels."""

    def __init__(self, files: Files, root: Path) -> None:
        self.files, self.root = files, root

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        return read_image(path), label

    def digest(self) -> str:
        lines = (f"{path.relative_to(self.root).as_posix()}\n{label}" for path, label in self.files)
        return digest_of(*lines)


def read_image(path: Path) -> Image.Image:
    """A decoded image. Raises: DataError if the file is none, is broken, or is too large to be one."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Image.UnidentifiedImageError:
        raise DataError(f"{path} is not an image that can be read\n  hint: remove or replace it") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as e:
        raise DataError(f"cannot read {path}: {e}\n  hint: remove or replace it") from None


@source("imagefolder", "imagefolder:PATH")
def _imagefolder(rest: str, options: Options) -> tuple[Sequence[str], Split, Split]:
    """`PATH/train/CLASS/*` and `PATH/val/CLASS/*`; or `PATH/CLASS/*`, of which a part is held out."""
    root = Path(rest)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    if not (root / "train").is_dir():
        classes = _classes(root)
        files = _files(root, classes)
        train, val = hold_out([label for _, label in files], val_share(options))
        return (
            classes,
            ImageSplit(FileReader([files[i] for i in train], root)),
            ImageSplit(FileReader([files[i] for i in val], root)),
        )
    held = next((root / name for name in _VAL if (root / name).is_dir()), None)
    if held is None:
        raise DataError(
            f"{root} has a folder train but none of {', '.join(_VAL)}\n  hint: give one, or CLASS folders alone"
        )
    classes = _classes(root / "train")
    for name in _classes(held):
        if name not in classes:
            hint = did_you_mean(name, classes, "classes")
            raise DataError(f"{held} has the class '{name}', {root / 'train'} has not\n  hint: {hint}")
    splits = [ImageSplit(FileReader(_files(folder, classes), root)) for folder in (root / "train", held)]
    return classes, splits[0], splits[1]


def _classes(folder: Path) -> list[str]:
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as e:
        raise DataError(f"cannot read {folder}: {(e.strerror or str(e)).lower()}") from None
    if not found:
        raise DataError(f"{folder} has no folders; a class is a folder of images\n  hint: {folder}/CLASS/IMAGE.jpg")
    return found


def _files(folder: Path, classes: list[str]) -> Files:
    """Every image below the class folders, in the order of names."""
    files: Files = []
    for label, name in enumerate(classes):
        before = len(files)
        for at, below, names in os.walk(folder / name, followlinks=True):
            below.sort()
            files += [(Path(at, n), label) for n in sorted(names) if n.lower().endswith(SUFFIXES)]
        if len(files) == before and (folder / name).is_dir():
            raise DataError(
                f"{folder / name} holds no images\n  hint: files that end in {', '.join(SUFFIXES[:5])}, ..."
            )
    return files
