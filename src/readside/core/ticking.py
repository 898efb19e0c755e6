"""Polling by ticks: which rows a batch has, and when to look again.

A tick is a durable note of one snapshot of the database. A batch is what the newer of two ticks sees
and the older one does not, in the order of the rows' sequence; nothing else is complete without
waiting for the longest transaction, and keeps the order of row locks (PgQ found it).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from readside.core.errors import DecodeError


class Snapshot(NamedTuple):
    """Which transactions are visible, in PostgreSQL's own terms."""

    #: Every transaction below has ended.
    xmin: int
    #: No transaction from here on had ended.
    xmax: int
    #: Those between that were running.
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read a pg_snapshot's text, e.g. ``10:20:10,14,15``.

        Raises:
            DecodeError: it is none.
        """
        try:
            xmin, xmax, running = text.split(":")
            found = frozenset(int(xid) for xid in running.split(",") if xid)
            return cls(int(xmin), int(xmax), found)
        except ValueError as error:
            raise DecodeError(f"{text[:80]!r} is no snapshot.") from error

    def sees(self, xid: int) -> bool:
        """Whether this transaction had ended; one that was rolled back has no rows to see."""
        return xid < self.xmax and xid not in self.running


class Batch(NamedTuple):
    """The transactions that ended between two snapshots, in a form that an index can look for."""

    #: All from `first` and below `end`, without those of `without`.
    first: int
    end: int
    without: tuple[int, ...]
    #: Older ones, which were running at the first snapshot and are not any more.
    late: tuple[int, ...]

    def has(self, xid: int) -> bool:
        """Whether a transaction belongs to it."""
        return (self.first <= xid < self.end and xid not in self.without) or xid in self.late


def between(older: Snapshot, newer: Snapshot) -> Batch:
    """What the newer snapshot sees and the older one does not."""
    return Batch(
        older.xmax,
        max(older.xmax, newer.xmax),
        tuple(sorted(xid for xid in newer.running if xid >= older.xmax)),
        tuple(sorted(xid for xid in older.running if newer.sees(xid))),
    )


#: Seconds between two looks, while there is something and when nothing came for long.
SOONEST: Final = 0.002
LATEST: Final = 0.1
#: Seconds after which a tick is due though no event came: other writers' tokens wait for it.
QUIET: Final = 1.0
#: Ticks after one with events: a token that was taken meanwhile may name an end of the log which the
#: first of them still finds unchanged, the second never.
FOLLOWING: Final = 2


class Pace:
    """When to look for events, and when to make a tick though there are none. Times are steady seconds."""

    def __init__(self) -> None:
        self._pause = SOONEST
        self._following = 0
        self._ticked_at = float("-inf")

    def ticked(self, now: float, *, events: bool) -> None:
        """Note a tick."""
        self._ticked_at = now
        if events:
            self._pause, self._following = SOONEST, FOLLOWING
        else:
            self._following = max(0, self._following - 1)

    def due(self, now: float) -> bool:
        """Whether a tick is to be made even if there is nothing new."""
        return self._following > 0 or now - self._ticked_at >= QUIET

    def pause(self) -> float:
        """Seconds to wait after a look that found nothing; longer from time to time."""
        pause, self._pause = self._pause, min(LATEST, self._pause * 1.5)
        return pause
