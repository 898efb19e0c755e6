"""What writers and observers saw, a JSON array a line, in order of time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32


class Journal:
    """Appends lines, each whole: a process that is killed loses at most what it had not written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @property
    def size(self) -> int:
        """Bytes written so far, by earlier processes too."""
        return os.fstat(self._file).st_size

    def note(self, *values: Any) -> None:
        """Write one line with the time in front."""
        os.write(self._file, json.dumps([round(time.time(), 4), *values]).encode() + b"\n")


def lines(path: Path) -> Iterator[list[Any]]:
    """Read a journal; a last line that is not whole is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def fingerprint(document: bytes | None) -> int | None:
    """A short stand-in for a document; None for none."""
    return None if document is None else len(document) << 32 | crc32(document)


def marks_fingerprint(marks: list[int]) -> int:
    """A short stand-in for one stream of a pair."""
    return fingerprint(",".join(map(str, marks)).encode()) or 0
