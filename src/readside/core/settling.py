"""How far the source may forget: only what every projection has durably applied."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from readside.core.chain import Head
from readside.core.position import Position


class Bookmark(NamedTuple):
    """A place from which the relay can start again, with the heads of the chain there."""

    lsn: int
    heads: tuple[Head, ...]


class Settling:
    """Remembers bookmarks of what was shipped, and finds the last one that all have applied.

    Bounded: beyond `capacity` every second bookmark is forgotten, so a projector that is
    far behind costs coarser confirmation, not memory.
    """

    def __init__(self, start: Bookmark, capacity: int = 512) -> None:
        self._bookmarks: deque[Bookmark] = deque([start])
        self._capacity = capacity

    @property
    def confirmed(self) -> Bookmark:
        """Where a relay that starts now would begin."""
        return self._bookmarks[0]

    @property
    def shipped(self) -> Bookmark:
        """The last place known to be with the broker."""
        return self._bookmarks[-1]

    def mark(self, lsn: int, heads: Sequence[Head]) -> None:
        """Note that everything which committed before `lsn` is with the broker."""
        if lsn <= self.shipped.lsn:
            return
        self._bookmarks.append(Bookmark(lsn, tuple(heads)))
        if len(self._bookmarks) > self._capacity:
            kept = list(self._bookmarks)
            self._bookmarks = deque([kept[0], *kept[2:-1:2], kept[-1]])

    def settle(self, applied: Position | None) -> Bookmark | None:
        """Forget what everybody has; return the new bookmark to confirm, if there is one.

        Args:
            applied: the lowest position over all projections and partitions, or None if
                a projection has never started, in which case nothing may be forgotten.
        """
        if applied is None:
            return None
        found = None
        while len(self._bookmarks) > 1 and self._bookmarks[1].lsn <= applied.lsn:
            self._bookmarks.popleft()
            found = self._bookmarks[0]
        return found

    def force(self) -> Bookmark | None:
        """Forget everything shipped, whoever has it: the bound on retained WAL was passed."""
        if len(self._bookmarks) == 1:
            return None
        last = self._bookmarks[-1]
        self._bookmarks = deque([last])
        return last
