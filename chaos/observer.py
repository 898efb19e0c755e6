"""An observer process: ``python -m chaos.observer URL JOURNAL``; reads all documents all the time.

It goes behind readside's back and notes what has changed.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from chaos.documents import AWAY, Documents, opened
from chaos.journal import Journal, fingerprint, marks_fingerprint
from chaos.workload import MORTAL, RARE, STABLE, STREAMS

_PAUSE = 0.04
_PROJECTIONS = ("lists", "registers", "counters")
_PAIRS = tuple(sorted({f"pairs:p-{stream.partition('-')[2]}" for stream in STREAMS}))
_KEYS = tuple(
    f"{projection}:{key}" for projection in _PROJECTIONS for key in STABLE + MORTAL + RARE
)


def observe(url: str, journal: Journal) -> None:
    """Look until killed."""
    seen: dict[str, Any] = {}
    away = False
    while True:
        try:
            with opened(url) as documents:
                while True:
                    _look(documents, journal, seen)
                    if away:
                        journal.note("back")
                        away = False
                    time.sleep(_PAUSE)
        except AWAY as error:
            if not away:
                journal.note("away", type(error).__name__)
            away = True
            time.sleep(0.05)


def _look(documents: Documents, journal: Journal, seen: dict[str, Any]) -> None:
    asked = time.time()
    found = documents.get([*_KEYS, *_PAIRS])
    for name, document in zip(_KEYS, found, strict=False):
        _changed(journal, seen, name, fingerprint(document), asked)
    for name, document in zip(_PAIRS, found[len(_KEYS) :], strict=True):
        streams = {} if document is None else msgspec.json.decode(document)["streams"]
        for stream in _streams_of(name):
            marks = marks_fingerprint(streams.get(stream, []))
            _changed(journal, seen, f"{name}:{stream}", marks, asked)


def _streams_of(name: str) -> tuple[str, str]:
    number = name.rpartition("-")[2]
    return f"l-{number}", f"r-{number}"


def _changed(
    journal: Journal, seen: dict[str, Any], name: str, now: int | None, asked: float
) -> None:
    if name not in seen or seen[name] != now:
        seen[name] = now
        journal.note("saw", name, now, asked)


def main() -> None:
    """Run one observer."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    observe(sys.argv[1], Journal(Path(sys.argv[2])))


if __name__ == "__main__":
    main()
