"""The app under test: five projections whose documents show loss, duplicates and disorder at one look.

Handlers consult the file system for one thing only: whether a poisoned event was mended.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import readside

# A run has to show that records came again, and that is said at this level only.
logging.getLogger("readside.projector").setLevel(logging.DEBUG)

#: Documents of `totals`; every partition feeds each of them.
BUCKETS = 3
#: Marks of a stream that a pair keeps: a long run must not grow the documents for ever.
KEPT = 300
#: Poisons which `lists` alone stumbles over, and everybody on the same process with it.
_DEADLY = ("exit", "hang")
_UNWRITABLE: Any = object()  # no encoder takes it


class PoisonedError(Exception):
    """The handler stumbles over this event until it is mended."""


class Wrote(readside.Event, key="key"):
    """A key got its next version."""

    key: str
    version: int
    #: Unique in the whole run, so that a phantom cannot pass for the real one.
    mark: int
    bucket: int
    #: Empty, or the tag of a poison: "raises-…", "unwritable-…", "exit-…" or "hang-…".
    poison: str = ""


class Erased(readside.Event, key="key"):
    """A key's documents go; its counter stays."""

    key: str
    version: int
    mark: int
    bucket: int


class FedLeft(readside.Event, key="key"):
    """One stream of a pair."""

    key: str
    pair: str
    version: int
    mark: int


class FedRight(readside.Event, key="key"):
    """The other stream of a pair, with a key and mostly a partition of its own."""

    key: str
    pair: str
    version: int
    mark: int


class History(readside.View):
    """All marks of a key since it was last erased, in order."""

    marks: list[int]


class Register(readside.View):
    """The last write."""

    version: int
    mark: int


class Count(readside.View):
    """How many events, and the sum of their marks modulo 1000."""

    count: int
    total: int


class Pair(readside.View):
    """The last marks of each stream that feeds the document."""

    streams: dict[str, list[int]]


#: The same for all projections; chosen when the module is imported, as a declaration is.
MODE: Any = os.environ.get("CHAOS_MODE", "async")

app = readside.App("chaos")
lists = app.projection("lists", History, mode=MODE)
registers = app.projection("registers", Register, mode=MODE)
counters = app.projection("counters", Count, mode=MODE)
pairs = app.projection("pairs", Pair, mode=MODE)
totals = app.projection("totals", Count, mode=MODE)


def _poisoned(event: Wrote) -> bool:
    if not event.poison:
        return False
    return not (Path(os.environ.get("CHAOS_MENDED", "/nonexistent")) / event.poison).exists()


def _stumble(event: Wrote) -> None:
    if _poisoned(event) and not event.poison.startswith(_DEADLY):
        raise PoisonedError(event.poison)


def _die(event: Wrote) -> None:
    """End the process, or hang, until it is mended."""
    if event.poison.startswith("exit") and _poisoned(event):
        os._exit(9)
    while event.poison.startswith("hang") and _poisoned(event):
        pass


def _counted(event: Wrote | Erased, count: Count | None) -> Count:
    before = count or Count(0, 0)
    return Count(before.count + 1, before.total + event.mark % 1000)


@lists.on
def list_wrote(event: Wrote, history: History | None) -> History:
    """Append."""
    marks = [*(history.marks if history else []), event.mark]
    if event.poison.startswith("unwritable") and _poisoned(event):
        return History([*marks, _UNWRITABLE])
    _stumble(event)
    _die(event)
    return History(marks)


@lists.on
def list_erased(event: Erased) -> None:
    """Begin anew."""
    del event


@registers.on
def register_wrote(event: Wrote) -> Register:
    """Overwrite."""
    return Register(event.version, event.mark)


@registers.on
def register_erased(event: Erased) -> None:
    """Delete."""
    del event


@counters.on
def counter_wrote(event: Wrote, count: Count | None) -> Count:
    """Count."""
    if not event.poison.startswith("unwritable"):
        _stumble(event)
    return _counted(event, count)


@counters.on
def counter_erased(event: Erased, count: Count | None) -> Count:
    """Count."""
    return _counted(event, count)


@totals.on(key=lambda event: f"bucket-{event.bucket}")
def total_wrote(event: Wrote, count: Count | None) -> Count:
    """Count in a document that all partitions share."""
    return _counted(event, count)


@totals.on(key=lambda event: f"bucket-{event.bucket}")
def total_erased(event: Erased, count: Count | None) -> Count:
    """Count in a document that all partitions share."""
    return _counted(event, count)


def _fed(event: FedLeft | FedRight, pair: Pair | None) -> Pair:
    streams = dict(pair.streams) if pair else {}
    streams[event.key] = [*streams.get(event.key, []), event.mark][-KEPT:]
    return Pair(streams)


@pairs.on(key="pair")
def pair_left(event: FedLeft, pair: Pair | None) -> Pair:
    """Append to this stream."""
    return _fed(event, pair)


@pairs.on(key="pair")
def pair_right(event: FedRight, pair: Pair | None) -> Pair:
    """Append to this stream."""
    return _fed(event, pair)
