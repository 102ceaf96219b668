"""Folders of trainings kept in shared storage as well, so that a training goes on after its machine is lost.

A folder is worked in where it is, on a disk; a thread copies what has changed to the storage, any that fsspec knows
(`s3://`, `gs://`, `file://` of a mount). Whoever begins a training asks the storage first. What counts is the version:
`mirror.json` is written last, there and here, so of two copies the later one is known, and one that was cut off is not
taken for whole.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockforge.errors import SearchError, in_a_line
from blockforge.extras import need
from blockforge.files import write_text
from blockforge.notes import note

EVERY = 30.0
"""Seconds between looks for what has changed."""
_VERSION = "mirror.json"
_LEFT_OUT = ("run.lock", _VERSION)


class Mirror:
    """A place in shared storage.

    Args:
        url: where folders are kept, as in `s3://bucket/runs`.
        every: seconds between looks.
    Raises: SearchError, MissingExtraError: where nothing can be kept there.
    """

    def __init__(self, url: str, every: float = EVERY) -> None:
        need("shared", "fsspec")
        import fsspec

        self.url, self.every = url.rstrip("/"), every
        if "://" not in url:
            raise SearchError(f"'{url}' is no URL\n  hint: --checkpoints s3://bucket/runs, or file:///mnt/runs")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.url)
            self.files.makedirs(self.root, exist_ok=True)
        except ImportError as e:
            scheme = url.partition("://")[0]
            raise SearchError(
                f"{scheme}:// needs a package of its own: {e}\n  hint: pip install what it names"
            ) from None
        except Exception as e:  # whatever a storage raises: each has errors of its own
            hint = "a URL that fsspec knows, which this machine may write to"
            raise SearchError(f"checkpoints cannot be kept in {url}: {in_a_line(e)}\n  hint: {hint}") from None

    @contextlib.contextmanager
    def kept(self, folder: Path, name: str) -> Iterator[KeptFolder]:
        """While a folder is worked in: it begins as the storage has it, where that is later, and is copied on the way
        and at the end. One that is finished, or gone at the end, is removed there."""
        copy = KeptFolder(self, folder, f"{self.root}/{name}")
        copy.bring()
        over = threading.Event()
        thread = threading.Thread(target=copy.follow, args=(over,), name="mirror", daemon=True)
        thread.start()
        try:
            yield copy
        finally:
            over.set()
            thread.join()
            copy.push() if folder.exists() and not copy.finished else copy.remove()


class KeptFolder:
    """One folder and its copy.

    Attributes:
        finished: nobody will go on with it.
    """

    def __init__(self, mirror: Mirror, folder: Path, place: str) -> None:
        self.finished = False
        self.files, self.url, self.every = mirror.files, mirror.url, mirror.every
        self.folder, self.place = folder, place
        self.known: dict[str, tuple[int, int]] = {}
        self.told = False

    def bring(self) -> None:
        """Fetch the copy, if it is later than what is here."""
        with self._telling("fetched from"):
            there = self._version_there()
            if there <= self._version_here():
                return
            fresh = self.folder.with_name(f".{self.folder.name}.fetched")
            shutil.rmtree(fresh, ignore_errors=True)
            for path in self.files.find(self.place):
                name = path[len(self.place) :].lstrip("/")
                if not name.endswith(".part"):
                    (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                    self.files.get_file(path, str(fresh / name))
            shutil.rmtree(self.folder, ignore_errors=True)
            fresh.rename(self.folder)
            self.known = self._state()

    def follow(self, over: threading.Event) -> None:
        while not over.wait(self.every):
            self.push()

    def push(self) -> None:
        """Copy what has changed."""
        with self._telling("copied to"):
            now = self._state()
            changed = [name for name, state in now.items() if self.known.get(name) != state]
            if not changed:
                return
            for name in changed:
                self._put(self.folder / name, name)
            text = json.dumps({"version": max(self._version_here(), self._version_there()) + 1})
            write_text(self.folder / _VERSION, text)
            self._put(self.folder / _VERSION, _VERSION)
            self.known = now

    def remove(self) -> None:
        with self._telling("removed from"):
            if self.files.exists(self.place):
                self.files.rm(self.place, recursive=True)

    def _put(self, file: Path, name: str) -> None:
        """Under another name first: a reader sees the old file or the new one."""
        place = f"{self.place}/{name}"
        self.files.makedirs(place.rpartition("/")[0], exist_ok=True)
        self.files.put_file(str(file), f"{place}.part")
        self.files.mv(f"{place}.part", place)

    def _state(self) -> dict[str, tuple[int, int]]:
        """Files that are copied, with their times and sizes; what is written under another name is not there yet."""
        files = {}
        for file in self.folder.rglob("*") if self.folder.exists() else ():
            if file.name not in _LEFT_OUT and not file.name.startswith("."):
                with contextlib.suppress(OSError):
                    if file.is_file():
                        stat = file.stat()
                        files[file.relative_to(self.folder).as_posix()] = (stat.st_mtime_ns, stat.st_size)
        return files

    def _version_here(self) -> int:
        return _version((self.folder / _VERSION).read_bytes()) if (self.folder / _VERSION).exists() else 0

    def _version_there(self) -> int:
        self.files.invalidate_cache()
        path = f"{self.place}/{_VERSION}"
        return _version(self.files.cat_file(path)) if self.files.exists(path) else 0

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """A storage that fails is told of, once for a folder, and ends no training."""
        try:
            yield
        except Exception as e:
            if not self.told:
                self.told = True
                note(f"the folder {self.folder.name} could not be {what} {self.url}: {in_a_line(e)}")


def _version(content: bytes) -> int:
    try:
        known: dict[str, Any] = json.loads(content)
        return int(known["version"])
    except (ValueError, TypeError, KeyError):
        return 0
