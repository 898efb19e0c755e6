"""What must be true, computed from the history in PostgreSQL by a fold of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from chaos.app import BUCKETS, KEPT
from chaos.journal import fingerprint, marks_fingerprint
from chaos.workload import MORTAL, RARE, STABLE, STREAMS


class Entry(NamedTuple):
    """One committed version of a key."""

    version: int
    kind: str
    mark: int
    bucket: int
    poison: str


class Oracle:
    """The history of every key, and what each document must be after each version."""

    def __init__(self, history: dict[str, list[Entry]]) -> None:
        self.history = history
        self.committed = sum(len(entries) for entries in history.values())
        #: name of a document (or `pairs:<pair>:<stream>`) -> fingerprint after each version, from 0.
        self.states: dict[str, list[int | None]] = {}
        #: What lists must be in the end; None for no document.
        self.lists: dict[str, list[int] | None] = {}
        self.registers: dict[str, tuple[int, int] | None] = {}
        self.counters: dict[str, tuple[int, int] | None] = {}
        self.pairs: dict[str, dict[str, list[int]]] = {}
        self.totals = {f"bucket-{number}": [0, 0] for number in range(BUCKETS)}
        for key in (*STABLE, *MORTAL, *RARE):
            self._fold(key, history.get(key, []))
        for stream in STREAMS:
            self._feed(stream, history.get(stream, []))

    def _fold(self, key: str, entries: list[Entry]) -> None:
        lists: list[int | None] = [None]
        registers: list[int | None] = [None]
        counters: list[int | None] = [None]
        marks: list[int] | None = None
        register: tuple[int, int] | None = None
        count = total = 0
        for entry in entries:
            count, total = count + 1, total + entry.mark % 1000
            self.totals[f"bucket-{entry.bucket}"][0] += 1
            self.totals[f"bucket-{entry.bucket}"][1] += entry.mark % 1000
            if entry.kind == "erased":
                marks = register = None
            else:
                marks, register = [*(marks or []), entry.mark], (entry.version, entry.mark)
            lists.append(_print(None if marks is None else _list(marks)))
            registers.append(_print(None if register is None else _register(*register)))
            counters.append(_print(f'{{"count":{count},"total":{total}}}'))
        self.states[f"lists:{key}"] = lists
        self.states[f"registers:{key}"] = registers
        self.states[f"counters:{key}"] = counters
        self.lists[key], self.registers[key] = marks, register
        self.counters[key] = (count, total) if count else None

    def _feed(self, stream: str, entries: list[Entry]) -> None:
        pair = f"p-{stream.partition('-')[2]}"
        marks = [entry.mark for entry in entries]
        self.states[f"pairs:{pair}:{stream}"] = [
            marks_fingerprint(marks[max(0, length - KEPT) : length])
            for length in range(len(marks) + 1)
        ]
        if marks:
            self.pairs.setdefault(pair, {})[stream] = marks[-KEPT:]

    def known(self, key: str) -> set[int]:
        """All marks that were ever committed for a key."""
        return {entry.mark for entry in self.history.get(key, [])}


def _list(marks: list[int]) -> str:
    return f'{{"marks":[{",".join(map(str, marks))}]}}'


def _register(version: int, mark: int) -> str:
    return f'{{"version":{version},"mark":{mark}}}'


def _print(document: str | None) -> int | None:
    return fingerprint(None if document is None else document.encode())


def read_oracle(dsn: str) -> Oracle:
    """Load the history."""
    history: dict[str, list[Entry]] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows: Any = connection.execute(
            "SELECT key, version, kind, mark, bucket, poison FROM chaos.history"
            " ORDER BY key, version"
        )
        for key, *entry in rows:
            history.setdefault(key, []).append(Entry(*entry))
    for key, entries in history.items():
        if [entry.version for entry in entries] != list(range(1, len(entries) + 1)):
            raise RuntimeError(f"The oracle itself is wrong: versions of {key} have holes.")
    return Oracle(history)
