"""The log file of one server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LARGEST = 16 * 1024 * 1024
_TAIL_LINES = 12


@dataclass
class Log:
    """A file that a server writes its output to; one older file is kept beside it.

    Attributes:
        path: the file.
        start: where the output of the present run begins, in bytes.
    """

    path: Path
    start: int = 0

    def begin(self) -> None:
        """Remember that a new run begins here."""
        if self.path.exists() and self.path.stat().st_size > _LARGEST:
            self.path.replace(self.path.with_suffix(".log.old"))
        self.start = self.path.stat().st_size if self.path.exists() else 0

    def open(self) -> BinaryIO:
        """The file to append to; the caller closes it."""
        return self.path.open("ab")

    def tail(self) -> str:
        """Where the log is and the last lines of the present run, for an error message."""
        with self.path.open("rb") as file:
            file.seek(max(self.start, self.path.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n    ".join([f"Its log {self.path} ends with:", *(lines or ["(nothing)"])])
