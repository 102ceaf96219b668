"""The user's code on another machine: files of objectives and plugins, read where a search begins and written where a
worker runs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from blockforge.errors import SearchError
from blockforge.files import write_text

_MOST = 4_000_000
"""Bytes of code that are carried."""
_found: dict[str, Path] = {}


def found(name: str) -> Path:
    """Where a file of the user's lies here, by the name that the study has for it."""
    return _found.get(name, Path(name).expanduser())


def read(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Each file with the modules beside it: name -> name in its folder -> text.

    Raises: SearchError if that is too much, or no text.
    """
    code, size = {}, 0
    for name in dict.fromkeys(names):
        path = found(name).resolve()
        own = code[name] = {path.name: ""}
        for file in sorted({path, *path.parent.glob("*.py")}):
            try:
                own[file.name] = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                raise SearchError(f"{file} cannot be sent to workers: {e}") from None
            size += len(own[file.name])
        if size > _MOST:
            text = f"{name} and what lies beside it is too much code to send ({size / 1e6:.0f} MB)"
            raise SearchError(f"{text}\n  hint: a folder of its own, or a package that is installed on every node")
    return code


def unpack(code: Mapping[str, Mapping[str, str]]) -> None:
    """Write what `read` gave into a folder of this user, the same one for the same code."""
    for name, files in code.items():
        text = json.dumps([name, files], sort_keys=True)
        own = f"blockforge-{os.getuid()}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        folder = Path(tempfile.gettempdir()) / own
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise SearchError(f"{folder} is somebody else's")
        for file, content in files.items():
            write_text(folder / file, content)
        _found[name] = folder / Path(name).name
