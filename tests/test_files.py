"""Files that appear whole or not at all, on disks that refuse: whatever a library raises, it is one error."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import no_file_above
from safetensors.torch import load_file, save_file

from blockforge.errors import BlockforgeError, OutputError
from blockforge.files import PatientFile, append_text, make_folder, write_atomically, write_text
from blockforge.weights.tensor_files import save_tensors

LIMIT = 100_000
BIG = torch.arange(100_000.0)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit to the size of files stands in for a disk that is full."""
    with no_file_above(LIMIT):
        yield


def _in_torch(file: Path) -> None:
    with PatientFile(file) as out:
        torch.save(BIG, out)


def _program(file: Path) -> None:
    model = torch.nn.Linear(200, 200)
    with PatientFile(file) as out:
        torch.export.save(torch.export.export(model, (torch.zeros(1, 200),)), out)  # type: ignore[arg-type]


def _figure(file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().imshow(torch.rand(400, 400).numpy())
    figure.savefig(file, format="png", dpi=300)


def _quiet(file: Path) -> None:
    """A library that says nothing of its disk."""
    try:
        file.write_bytes(bytes(2 * LIMIT))
    except OSError:
        raise RuntimeError("iostream error") from None


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda file: file.write_text("x" * 2 * LIMIT),
    "safetensors": lambda file: save_file({"x": BIG}, file),
    "torch": lambda file: torch.save(BIG, file),
    "torch, a file": _in_torch,
    "a program": _program,
    "a figure": _figure,
    "a library that says nothing": _quiet,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(
    tmp_path: Path, full_disk: None, writer: str, there: bool
) -> None:
    file = tmp_path / "out"
    if there:
        file.write_text("before")
    with pytest.raises(OutputError, match=r"^cannot write .*out: file too large$") as e:
        write_atomically(file, WRITERS[writer])
    assert e.value.reason == "file too large"
    assert [p.name for p in tmp_path.iterdir()] == (["out"] if there else [])
    assert not there or file.read_text() == "before"


def test_what_is_not_the_disks_fault_is_raised_as_it_is(tmp_path: Path) -> None:
    def broken(file: Path) -> None:
        raise RuntimeError("a bug")

    def refused(file: Path) -> None:
        try:
            raise FileNotFoundError(2, "No such file or directory")
        except OSError:
            raise BlockforgeError("no weights") from None

    with pytest.raises(RuntimeError, match="a bug"):
        write_atomically(tmp_path / "x", broken)
    with pytest.raises(BlockforgeError, match=r"^no weights$"):
        write_atomically(tmp_path / "x", refused)
    assert not list(tmp_path.iterdir())


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "x", r"there is no folder .*no\n  hint: mkdir -p .*no$"),
        (tmp_path / "file" / "x", "there is no folder .*file$"),
        (tmp_path / ("x" * 300), "file name too long"),
        (Path("/proc/x"), "no such file or directory"),
        (Path("/dev/full"), "no space left on device"),
    ):
        with pytest.raises(OutputError, match=f"cannot write .*: {why}"):
            write_text(path, "text")
    with pytest.raises(OutputError, match=r"cannot write to .*file: it is not a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match=r"cannot write to .*file/x: not a directory"):
        make_folder(tmp_path / "file" / "x")


def test_devices_pipes_and_links_stay_what_they_are(tmp_path: Path) -> None:
    write_text(Path("/dev/null"), "text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    program = (
        "from pathlib import Path\nfrom blockforge.files import write_text\nwrite_text(Path('/dev/stdout'), 'piped')"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "piped"


def test_a_pipe_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    imports = "import sys\nfrom pathlib import Path\nfrom blockforge.files import write_text\n"
    program = f"{imports}write_text(Path(sys.argv[1]), 'text')"
    done = subprocess.run([sys.executable, "-c", program, pipe], capture_output=True, text=True, timeout=300)
    assert f"cannot write {pipe}: nobody reads this pipe\n  hint: cat {pipe} > FILE & first" in done.stderr
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    for _ in range(1000):
        try:
            write_text(pipe, "x" * 200_000)
        except OutputError:  # the reader has not opened it yet
            time.sleep(0.01)
            continue
        break
    reader.join()
    assert read == ["x" * 200_000]


def test_rows_that_do_not_fit_are_taken_back(tmp_path: Path, full_disk: None) -> None:
    file = tmp_path / "rows"
    append_text(file, "a\n")
    with pytest.raises(OutputError, match="file too large"):
        append_text(file, "b" * 2 * LIMIT)
    append_text(file, "c\n")
    assert file.read_text() == "a\nc\n"


def test_equal_tensors_are_equal_bytes_whatever_process_writes_them(tmp_path: Path) -> None:
    program = (
        "import sys, torch\nfrom pathlib import Path\nfrom blockforge.weights.tensor_files import save_tensors\n"
        "about = {k: 'ä\"' + k for k in sys.argv[2]}\nsave_tensors({'y': torch.ones(3), 'x': torch.ones(2).half()}, "
        "Path(sys.argv[1]), about)"
    )
    for i, order in enumerate(("abcdef", "fedcba", "cadbef")):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / str(i)), order], check=True)
    contents = [(tmp_path / str(i)).read_bytes() for i in range(3)]
    assert contents[0] == contents[1] == contents[2]
    assert torch.equal(load_file(tmp_path / "0")["y"], torch.ones(3))


def test_the_header_may_say_nothing(tmp_path: Path) -> None:
    save_tensors({"x": torch.ones(2)}, tmp_path / "x", {})
    assert load_file(tmp_path / "x")["x"].tolist() == [1, 1]


def test_errors_survive_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(OutputError.to("a", "b")))
    assert (str(error), error.reason) == ("cannot write to a: b", "b")
    assert isinstance(error, OSError)
