"""Where a study is: in a storage by URL, in the journal of a folder, or in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge.errors import SearchError
from blockforge.search.study.attributes import IDENTITY
from blockforge.search.study.config import StudyConfig
from blockforge.search.study.folder import SPACE, TRIALS, has_study, read_place
from blockforge.search.study.journal import JOURNAL
from blockforge.search.study.storage import STUDY, read_attributes, shown_url


@dataclass(frozen=True)
class StudyPlace:
    """A folder, a storage, or both: then the folder holds what a search writes beside its study."""

    folder: Path | None
    storage: str | None
    name: str

    @classmethod
    def of(cls, config: StudyConfig) -> StudyPlace:
        """The place that settings say, with what the folder itself says of it."""
        if config.out is not None and "://" in config.out:
            hint = f"--out DIR --checkpoints {config.out} keeps trainings there; --storage URL a study in a database"
            raise SearchError(f"--out is a folder of this machine, not {config.out}\n  hint: {hint}")
        folder = Path(config.out) if config.out is not None else None
        known = read_place(folder)
        storage = config.storage or known.get("storage")
        if storage and "://" not in storage:
            hint = "sqlite:///FILE, postgresql+psycopg://...; a folder is --out"
            raise SearchError(f"'{storage}' is no URL of a database\n  hint: {hint}")
        own = folder.name if storage and folder is not None else STUDY
        return cls(folder, storage, config.name or known.get("study") or own)

    @property
    def where(self) -> str | Path | None:
        return self.storage or self.folder

    def attributes(self) -> dict[str, Any] | None:
        """What the study keeps of itself; None if there is none."""
        return read_attributes(self.where, self.name)

    def study_exists(self) -> bool:
        return self.attributes() is not None if self.storage else has_study(self.folder)

    def check_whole(self, attributes: dict[str, Any] | None) -> None:
        """Raise SearchError where the folder holds what a study left, and the study itself is gone."""
        folder = self.folder
        left = [n for n in (SPACE, TRIALS) if folder is not None and (folder / n).exists()]
        begun = has_study(folder) or bool(read_place(folder)) or TRIALS in left
        if left and begun and IDENTITY not in (attributes or {}):
            where = shown_url(self.storage) if self.storage else f"{folder}/{JOURNAL}"
            text = f"{where} holds no study, but {folder} holds what one has left: {', '.join(left)}"
            raise SearchError(f"{text}\n  hint: bring it back from a copy, or start anew in another folder: --out DIR")

    def check_shared(self) -> None:
        """Raise SearchError where no other process sees the study."""
        if self.where is None:
            raise SearchError("several workers need a study that all of them see\n  hint: give --out DIR, or --storage")
