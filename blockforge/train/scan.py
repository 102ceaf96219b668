"""The image files below class folders: each real folder once, in the order of names, and what was left out."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blockforge.errors import DataError
from blockforge.train.data import Problem
from blockforge.train.pixels import not_a_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
Files = list[tuple[Path, int]]
Node = tuple[int, int]
"""Device and number of a folder: what it is, however it is reached."""


@dataclass
class Scan:
    """A walk below some folders.

    Attributes:
        known: folders that are not entered any more: those that were, and the data's own above them.
        problems: folders that cannot be read, and images that are no files.
        others: files that are no images, counted by their suffix.
        hidden: images whose names begin with a dot.
        links: links to folders that are known, and were not followed.
    """

    known: set[Node] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    links: int = 0

    @classmethod
    def below(cls, *tops: Path) -> Scan:
        """A walk that no link leads above these folders, or to themselves."""
        return cls({node_of(folder) for top in tops for folder in (top, *top.resolve().parents)})

    def images(self, folders: Iterable[Path]) -> list[list[Path]]:
        """The image files below each folder.

        What really lies below a folder belongs to it; links to folders are followed afterwards, so that one from a
        class to another's images takes nothing away from it.
        """
        by_class: list[list[Path]] = []
        waiting: list[tuple[int, Path]] = []
        for number, folder in enumerate(folders):
            self.known.add(node_of(folder))
            paths, links = self._walk(folder, lambda node: True)
            by_class.append(paths)
            waiting += [(number, link) for link in links]
        while waiting:
            number, link = waiting.pop(0)
            if (node := node_of(link)) in self.known:
                self.links += 1
                continue
            self.known.add(node)
            paths, links = self._walk(link, lambda node: node not in self.known)
            by_class[number] += paths
            waiting += [(number, further) for further in links]
        return [sorted(paths, key=_order) for paths in by_class]

    def _walk(self, top: Path, enters: Callable[[Node], bool]) -> tuple[list[Path], list[Path]]:
        """Images, and links to folders, of a folder and of the real folders below it, sorted."""
        images: list[Path] = []
        links: list[Path] = []
        folders = [top]
        while folders:
            for entry in self._entries(folders.pop()):
                path = Path(entry.path)
                if entry.name.startswith("."):
                    self.hidden += entry.name.lower().endswith(SUFFIXES)
                elif entry.is_symlink() and os.path.isdir(path):
                    links.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    if enters(node := node_of(path)):
                        folders.append(path)
                        self.known.add(node)
                elif not entry.name.lower().endswith(SUFFIXES):
                    self.others[path.suffix.lower() or "no suffix"] += 1
                elif os.path.isfile(path) if entry.is_symlink() else entry.is_file():
                    images.append(path)
                else:
                    self.problems.append(Problem(str(path), not_a_file(path) or "not a file"))
        return images, sorted(links)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as e:
            self.problems.append(
                Problem(str(folder), f"a folder that cannot be read: {(e.strerror or str(e)).lower()}")
            )
            return []

    def notes(self) -> Iterator[str]:
        """What was left out on purpose, in words."""
        if self.others:
            kinds = ", ".join(f"{suffix} {count}" for suffix, count in self.others.most_common(5))
            yield f"{self.others.total()} files that are no images are left out ({kinds})"
        if self.hidden:
            yield f"{self.hidden} images whose names begin with a dot are left out"
        if self.links:
            yield f"{self.links} links to folders that were entered already are not followed"


def node_of(folder: Path) -> Node:
    """What a folder is. Raises: DataError if it is not there."""
    try:
        status = os.stat(folder)
    except OSError as e:
        raise DataError(f"cannot read {folder}: {(e.strerror or str(e)).lower()}") from None
    return status.st_dev, status.st_ino


def class_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names as text (composed Unicode, whatever wrote them), in the order of names.

    Raises: DataError if there is none, if two are the same, or if a name is no text.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and os.path.isdir(folder / name))
    except OSError as e:
        raise DataError(f"cannot read {folder}: {(e.strerror or str(e)).lower()}") from None
    if not names:
        raise DataError(f"{folder} has no folders; a class is a folder of images\n  hint: {folder}/CLASS/IMAGE.jpg")
    classes: dict[str, Path] = {}
    nodes: dict[Node, Path] = {}
    for name in names:
        path, text = folder / name, unicodedata.normalize("NFC", name)
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise DataError(f"{folder} has a class whose name is not text: {name!r}\n  hint: rename it")
        twin = classes.get(text) or nodes.get(node_of(path))
        if twin is not None:
            raise DataError(f"{path} and {twin} are the same class\n  hint: remove one of them")
        classes[text] = nodes[node_of(path)] = path
    return classes


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    """The files of a folder come before those of the folders in it."""
    return (*((1, part) for part in path.parts[:-1]), (0, path.name))
