"""Files that appear whole or not at all, and every way in which a disk refuses one told as one error.

Libraries report a full disk in classes of their own (safetensors', torch's `RuntimeError`, C++ streams that only say
that they failed), so what went wrong is asked of the disk and not of the exception.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blockforge.errors import OutputError

_PROBE = b"\0" * 65_536


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, then rename it: readers see the old file
    or the new one. A device or a pipe gets the bytes in their order; a link stays, and its file is replaced.

    Raises: OutputError if it cannot be written; nothing is left of it then.
    """
    with telling(path):
        if path.is_dir():
            raise OutputError.of(path, "it is a folder")
        if not path.parent.is_dir():
            hint = "" if path.parent.exists() else f"\n  hint: mkdir -p {path.parent}"
            raise OutputError.of(path, f"there is no folder {path.parent}{hint}")
        if _is_stream(path):
            _stream(path, write)
            return
        target = Path(os.path.realpath(path))
        with _temporary(target.parent, target.name) as file:
            _fill(path, file, write)
            os.chmod(file, 0o666 & ~_umask())
            os.replace(file, target)
        _sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises: OutputError."""
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8", newline=""))


def make_folder(path: Path) -> None:
    """Make a folder for results, if it is not there. Raises: OutputError if it cannot be made."""
    if path.exists() and not path.is_dir():
        raise OutputError.to(path, "it is not a folder")
    with telling(path, OutputError.to):
        path.mkdir(parents=True, exist_ok=True)


def append_text(path: Path, text: str) -> None:
    """Add to a file in one write, on the disk before this returns; what does not fit whole is taken back.

    Raises: OutputError.
    """
    content = memoryview(text.encode())
    with telling(path), path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while content:  # one write, unless the disk cuts it: the next one then says why
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def cut_torn_line(path: Path) -> None:
    """Take back what power loss left of a last line. No other process may write meanwhile."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


@contextlib.contextmanager
def telling(path: Path, error: Callable[[object, str], OutputError] | None = None) -> Iterator[None]:
    """Whatever the disk refuses in this block is an OutputError about `path`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as e:
        raise (error or OutputError.of)(path, reason(e)) from None
    except ValueError as e:
        if "\0" not in str(path):
            raise
        raise (error or OutputError.of)(repr(str(path)), "a null byte is in its name") from e


class PatientFile(io.RawIOBase):
    """A new binary file for writers in C++, which end the process where a write fails: what fails is kept, and raised
    as OSError when the file is closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self._error is None:
            try:
                left = left[self._file.write(left) :]
            except OSError as e:
                self._error = e
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()
            if self._error is not None:
                raise self._error


def reason(error: OSError) -> str:
    """What the system says, in a few words: `no space left on device`."""
    return error.reason if isinstance(error, OutputError) else (error.strerror or str(error)).lower()


def remove_left(folder: Path, name: str) -> None:
    """Remove what a process that was killed while it wrote `name` left in the folder."""
    for left in folder.glob(f".{name}.*.tmp"):
        left.unlink(missing_ok=True)


def _fill(path: Path, file: Path, write: Callable[[Path], object]) -> None:
    """`write`, and the bytes on the disk. Raises: OutputError where it fails and the disk is why."""
    try:
        write(file)
        _sync(file)
    except OSError:
        raise
    except Exception as e:
        if (why := _disk_error(e, file)) is not None:
            raise OutputError.of(path, why) from None
        raise


def _disk_error(error: Exception, file: Path) -> str | None:
    """Why the disk took no more, if that is what another library's error means."""
    if told := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(told[1])).lower()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return reason(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    try:
        with file.open("ab", buffering=0) as probe:
            for _ in range(2):  # a write that is cut says nothing, the next one says why
                probe.write(_PROBE)
    except OSError as e:
        return reason(e)
    return None


@contextlib.contextmanager
def _temporary(folder: Path | None, name: str) -> Iterator[Path]:
    """An empty file that is gone at the end, unless it was renamed."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:100]}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(temporary)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _stream(path: Path, write: Callable[[Path], object]) -> None:
    with _temporary(None, path.name) as file:
        _fill(path, file, write)
        with file.open("rb") as source, open(path, "ab", opener=_with_reader) as sink:
            shutil.copyfileobj(source, sink)


def _with_reader(path: str, flags: int) -> int:
    """Open a stream; a pipe that nobody reads is refused, where an ordinary open would wait for ever."""
    try:
        handle = os.open(path, flags | os.O_NONBLOCK)
    except OSError as e:
        if e.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):
            raise OutputError.of(Path(path), f"nobody reads this pipe\n  hint: cat {path} > FILE & first") from None
        raise
    os.set_blocking(handle, True)
    return handle


def _is_stream(path: Path) -> bool:
    """Whether a rename would put a file in the place of something else: a device, a pipe, another process's file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) or os.path.abspath(path).startswith(("/dev/", "/proc/"))


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk; file systems that cannot are let be."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
