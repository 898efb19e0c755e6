"""Where events come from, in commit order."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from readside.core.record import Captured


class Chunk(NamedTuple):
    """What the source had at hand."""

    events: list[Captured]
    #: Everything that committed before this LSN is in this chunk or an earlier one.
    settled: int


class Source(Protocol):
    """The committed events of one database, in commit order, each at least once.

    It may send again what it has sent before, after every start, with the same positions.
    It never sends what did not commit, and it keeps what was not settled.
    A source belongs to one relay at a time.
    """

    async def start(self, lsn: int) -> None:
        """Begin with the transactions that committed at `lsn` or later.

        Raises:
            SlotBusyError: another relay reads it; try again.
            SlotLostError: it cannot begin there any more.
            UnavailableError, RefusedError: the server is away, or refuses.
        """

    async def read(self, patience: float) -> Chunk:
        """Wait at most `patience` seconds for something new, and return all that is at hand.

        Bounded in size; a large transaction comes in several chunks.
        """

    async def settle(self, lsn: int) -> None:
        """Allow the server to forget everything that committed before `lsn`."""

    async def close(self) -> None:
        """Let go, so that another relay can start."""
