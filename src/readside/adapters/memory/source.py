"""The model's log as a source, read through its slot."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from readside.adapters.memory.database import Database, Transaction, loop_time
from readside.core.errors import SlotBusyError, SlotLostError, UnavailableError
from readside.core.position import Position
from readside.core.record import Captured
from readside.ports.source import Chunk, SourceTraits
from readside.ports.traits import Promise

#: Events in one chunk; a large transaction comes in several.
_CHUNK = 4000


class MemorySource:
    """The committed events of a database in memory, in commit order.

    Args:
        database: the database.
        epoch: the epoch of the positions that it gives.
        chunk: the most events in one chunk.
        stutter: whether every other chunk is empty, as where the rest of a transaction is on its way.
    """

    traits: ClassVar[SourceTraits] = SourceTraits(keeps_commit_order=Promise.KEPT)

    def __init__(
        self, database: Database, epoch: int, chunk: int = _CHUNK, *, stutter: bool = False
    ) -> None:
        self._database = database
        self._epoch = epoch
        self._chunk = chunk
        self._stutter = stutter
        self._silent = False
        self._started = False
        self._settled = 0
        #: What comes next: the log position of a transaction, and how many of its rows are out.
        self._next = 0
        self._rows_out = 0

    async def start(self, lsn: int) -> None:
        """See ports.source."""
        await self.close()
        database = self._database
        slot = (await database.reach()).slot
        if slot is None or slot.lost:
            raise SlotLostError(f"The slot of {database.app} is {(slot and slot.lost) or 'gone'}.")
        if not database.attach(self):
            raise SlotBusyError(f"The slot of {database.app} is read by another.")
        self._started = True
        self._settled = lsn
        # Where more was confirmed, the server goes on there; never further back.
        self._next, self._rows_out = max(lsn, slot.confirmed), 0

    async def read(self, patience: float) -> Chunk:
        """See ports.source."""
        await self._connected()
        if self._idle():
            await self._wait(patience)
            await self._connected()
        self._silent = self._stutter and not self._silent
        if self._silent:
            return Chunk([], self._settled)
        events: list[Captured] = []
        while len(events) < self._chunk and (transaction := self._upcoming()) is not None:
            self._take(transaction, events)
        if self._idle():
            # The server's keepalive: nothing committed up to the end of its log.
            self._settled = max(self._settled, self._database.tables.flushed)
        return Chunk(events, self._settled)

    def _idle(self) -> bool:
        return self._upcoming() is None

    def _upcoming(self) -> Transaction | None:
        transactions = self._database.tables.transactions
        low, high = 0, len(transactions)
        while low < high:
            middle = (low + high) // 2
            if transactions[middle].lsn < self._next:
                low = middle + 1
            else:
                high = middle
        return transactions[low] if low < len(transactions) else None

    def _take(self, transaction: Transaction, events: list[Captured]) -> None:
        lsn, end, committed_at, rows = transaction
        some = rows[self._rows_out : self._rows_out + self._chunk - len(events)]
        for ordinal, row in enumerate(some, self._rows_out + 1):
            position = Position(self._epoch, lsn, ordinal)
            events.append(
                Captured(
                    position,
                    row.id,
                    row.type,
                    row.key,
                    row.version,
                    row.payload,
                    committed_at,
                    row.headers,
                )
            )
        self._rows_out += len(some)
        if self._rows_out == len(rows) and (len(events) < self._chunk or not some):
            # The commit message came too; where the chunk was full, it comes with the next.
            self._next, self._rows_out = end, 0
            self._settled = max(self._settled, end)

    async def _wait(self, patience: float) -> None:
        deadline = loop_time() + patience
        flushed = self._database.tables.flushed
        while self._database.running and self._database.tables.flushed == flushed:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._database.grown.wait()
            except TimeoutError:
                return

    async def _connected(self) -> None:
        slot = (await self._database.reach()).slot
        if not self._started:
            raise RuntimeError("start() first")
        if slot is None or slot.lost:
            raise SlotLostError(f"The slot of {self._database.app} was lost while it was read.")
        if self._database.reader is not self:
            raise UnavailableError("The replication stream has ended.", mend="start again")
        self._database.hear(self)

    async def settle(self, lsn: int) -> None:
        """See ports.source."""
        await self._connected()
        tables = self._database.tables
        if tables.slot is not None:
            confirmed = max(tables.slot.confirmed, lsn)
            tables.slot = type(tables.slot)(confirmed, tables.slot.durable)

    def retains(self, lsn: int) -> int | None:
        """See ports.source."""
        return lsn

    async def close(self) -> None:
        """See ports.source."""
        self._started = False
        self._database.detach(self)
