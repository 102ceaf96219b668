"""Images in folders, one a class: ImageNet's layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from blockforge.errors import DataError, did_you_mean
from blockforge.train.data import Opened, digest_of
from blockforge.train.images import ImageSplit
from blockforge.train.opening import Options, source
from blockforge.train.pixels import read_image
from blockforge.train.scan import SUFFIXES, Files, Scan, class_folders

_VAL, _TEST = ("val", "valid", "validation"), ("test",)


class FileReader:
    """Image files with their labels, below a folder."""

    def __init__(self, files: Files, root: Path) -> None:
        self.files, self.root = files, root

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        return read_image(path), label

    def labels(self) -> list[int]:
        return [label for _, label in self.files]

    def name(self, index: int) -> str:
        return str(self.files[index][0])

    def only(self, rows: Sequence[int]) -> FileReader:
        return FileReader([self.files[row] for row in rows], self.root)

    def digest(self) -> str:
        lines = (f"{path.relative_to(self.root).as_posix()}\n{label}" for path, label in self.files)
        return digest_of(*lines)


@source("imagefolder", "imagefolder:PATH")
def _imagefolder(rest: str, options: Options) -> Opened:
    """`PATH/train/CLASS/*` beside `PATH/val/CLASS/*`, `PATH/test/CLASS/*` or both; or `PATH/CLASS/*`."""
    root = Path(rest)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    tops, classes = _layout(root)
    scan = Scan.below(root, *tops)
    folders = [top.get(name) for top in tops.values() for name in classes]
    images = iter(scan.images([folder for folder in folders if folder is not None]))
    splits: list[Files] = []
    for top in tops.values():
        splits.append([])
        for label, name in enumerate(classes):
            if name in top:
                paths = next(images)
                _not_empty(top[name], paths, scan)
                splits[-1] += [(path, label) for path in paths]
    parts = {top.name: ImageSplit(FileReader(files, root)) for top, files in zip(tops, splits, strict=True)}
    train, *_ = parts.values()
    val, test = (next((parts[name] for name in names if name in parts), None) for names in (_VAL, _TEST))
    notes = (*scan.notes(), *_unlabelled(tops))
    return Opened(classes, train, val, problems=scan.problems, notes=notes, test=test)


def _layout(root: Path) -> tuple[dict[Path, dict[str, Path]], list[str]]:
    """The class folders below each split's folder, or below the root alone; and the classes by label."""
    if not (root / "train").is_dir():
        classes = class_folders(root)
        return {root: classes}, list(classes)
    held = [next((root / name for name in names if (root / name).is_dir()), None) for names in (_VAL, _TEST)]
    if held == [None, None]:
        names = ", ".join((*_VAL, *_TEST))
        raise DataError(f"{root} has a folder train but none of {names}\n  hint: give one, or CLASS folders alone")
    tops = {folder: class_folders(folder) for folder in (root / "train", *held) if folder is not None}
    classes = tops[root / "train"]
    for folder, own in tops.items():
        for name in own:
            if name not in classes:
                hint = did_you_mean(name, classes, "classes")
                raise DataError(f"{folder} has the class '{name}', {root / 'train'} has not\n  hint: {hint}")
    return tops, list(classes)


def _not_empty(folder: Path, images: Sequence[Path], scan: Scan) -> None:
    """Refuse a class of no images, with the reason if there is one."""
    if not images:
        wrong = [problem for problem in scan.problems if Path(problem.where).is_relative_to(folder)]
        why = f" that can be read: {wrong[0]}" if wrong else ""
        raise DataError(f"{folder} holds no images{why}\n  hint: files that end in {', '.join(SUFFIXES[:5])}, ...")


def _unlabelled(tops: dict[Path, dict[str, Path]]) -> Iterator[str]:
    """Says that images lie beside the class folders."""
    for top in tops:
        names = (entry.name for entry in top.iterdir() if entry.is_file())
        loose = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        if loose:
            yield f"{len(loose)} images in {top} are left out: they lie in no class folder"
