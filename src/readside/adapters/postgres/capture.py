"""An app's source, as its notes in the database want it: the slot, polling, or one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ClassVar

from psycopg import errors

from readside.adapters.postgres.handover import drop_passed_slot
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.polling import PollingSource
from readside.adapters.postgres.session import Session
from readside.adapters.postgres.source import SlotSource
from readside.core.errors import RefusedError, SchemaError
from readside.ports.source import Chunk, SourceTraits
from readside.ports.traits import Promise

log = logging.getLogger("readside.relay")

#: Seconds between two looks for a slot that is not needed any more.
LOOK_EVERY = 30.0


class PostgresSource:
    """The committed events of one app, by the capture that it is set up for.

    After a change of capture the old one tells of what came before the cut, then the new one of the
    rest. As long as a relay may have to go back behind the cut, the poller's lease decides who is
    the one relay; before and after, whatever the capture has by itself.
    """

    traits: ClassVar[SourceTraits] = SourceTraits(keeps_commit_order=Promise.CONFIGURED)

    def __init__(
        self,
        dsn: str,
        app: str,
        epoch: int,
        ttl: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._dsn = dsn
        self._app = app
        self._epoch = epoch
        self._ttl = ttl
        self._notes = Session(dsn, "capture", plain=True)
        self._slot: SlotSource | None = None
        self._poller: PollingSource | None = None
        self._polls = False
        self._cut = 0
        self._look_at = float("-inf")

    async def start(self, lsn: int) -> None:
        """See ports.source."""
        await self.close()
        found = await self._notes.query(
            "SELECT capture = 'polling', cut_lsn FROM readside.capture WHERE app = %s", [self._app]
        )
        if not found:
            raise SchemaError(f"App {self._app} is not installed.", mend="run: readside init …")
        ((self._polls, self._cut),) = found
        crossing = lsn < self._cut
        try:
            if self._polls or crossing:
                until = None if self._polls else self._cut
                self._poller = PollingSource(
                    self._dsn, self._app, self._epoch, ttl=self._ttl, until=until
                )
                await self._poller.start(max(lsn, self._cut) if self._polls else lsn)
            if self._polls is crossing:
                self._slot = SlotSource(self._dsn, self._app, self._epoch)
                await self._slot.start(lsn)
        except BaseException:
            await self.close()
            raise

    async def read(self, patience: float) -> Chunk:
        """See ports.source."""
        slot, poller = self._slot, self._poller
        if self._polls and slot is not None:
            return await self._until_cut(slot, patience)
        if poller is not None and (self._polls or slot is None):
            chunk = await poller.read(patience)
            if poller.finished and not self._polls:
                # Kept open: it holds the lease, for whoever has to go back behind the cut.
                self._slot = SlotSource(self._dsn, self._app, self._epoch)
                await self._slot.start(self._cut)
            return chunk
        if slot is None:
            raise RuntimeError("start() first")
        return await slot.read(patience)

    async def _until_cut(self, slot: SlotSource, patience: float) -> Chunk:
        chunk = await slot.read(patience)
        if not slot.handed_over and chunk.settled < self._cut:
            return chunk
        self._slot = None
        await slot.close()
        return Chunk([event for event in chunk.events if event.position.lsn < self._cut], self._cut)

    async def settle(self, lsn: int) -> None:
        """See ports.source."""
        if self._poller is not None:
            if lsn >= self._cut and not self._polls:
                # Nobody goes back behind the cut any more, and `init` may remove what polling needs.
                poller, self._poller = self._poller, None
                await poller.close()
            else:
                await self._poller.settle(lsn)
        if self._slot is not None:
            await self._slot.settle(min(lsn, self._cut) if self._polls else lsn)
        elif self._polls and lsn >= self._cut and self._clock() >= self._look_at:
            # Again and again: another process may have held it, or left one behind meanwhile.
            self._look_at = self._clock() + LOOK_EVERY
            await self._drop_slot()

    async def _drop_slot(self) -> None:
        slot = Names(self._app).slot
        try:
            async with self._notes.connection() as connection:
                await drop_passed_slot(connection, Names(self._app))
        except RefusedError as error:
            if not isinstance(error.__cause__, errors.InsufficientPrivilege):
                raise
            log.warning(
                "slot %s is not needed any more and keeps WAL, and may not be dropped by this user:"
                " SELECT pg_drop_replication_slot('%s')", slot, slot,
            )  # fmt: skip

    def retains(self, lsn: int) -> int | None:
        """See ports.source."""
        if self._polls:
            return lsn if lsn < self._cut else None
        return max(lsn, self._cut)

    async def close(self) -> None:
        """See ports.source."""
        slot, self._slot = self._slot, None
        poller, self._poller = self._poller, None
        try:
            if slot is not None:
                await slot.close()
        finally:
            try:
                if poller is not None:
                    await poller.close()
            finally:
                await self._notes.close()
