"""Where events come from, in commit order."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

from readside.core.record import Captured
from readside.ports.traits import Promise


class SourceTraits(NamedTuple):
    """What a source can honestly promise."""

    #: Transactions come one by one, in the order of their commits. Where not, those that were read
    #: together come in the order in which their events were written; that of one key's events, whose
    #: writers locked the same row, is right either way.
    keeps_commit_order: Promise


class Chunk(NamedTuple):
    """What the source had at hand."""

    events: list[Captured]
    #: Everything that committed before this LSN is in this chunk or an earlier one: whoever commits, and
    #: then finds the end of the database's log at this LSN or before, has been told of.
    settled: int


class Source(Protocol):
    """The committed events of one database, in order, each at least once.

    It may send again what it has sent before, after every start, with the same positions.
    It never sends what did not commit, and it keeps what was not settled.
    A source belongs to one relay at a time.
    """

    traits: ClassVar[SourceTraits]

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

    def retains(self, lsn: int) -> int | None:
        """From where the server keeps its log for this source when `lsn` is settled; None if it keeps none."""

    async def close(self) -> None:
        """Let go, so that another relay can start."""
