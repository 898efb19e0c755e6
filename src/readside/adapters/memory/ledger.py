"""readside's notes in the model of the write store: the same rules, without SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from readside.adapters.memory.database import Asked, Database, Notes, Slot
from readside.core.chain import Head
from readside.core.history import Known, Seen, restarted
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position, settled
from readside.core.settling import Bookmark
from readside.ports.ledger import Capture, Progress, Rewind, Shipped, Survey


class MemoryLedger:
    """The relay's and the projectors' notes of the app that a database in memory has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def capture(self, app: str, newest: Position = BEGINNING) -> Capture:
        """See ports.ledger; begins a new epoch where the history has restarted."""
        tables = await self._database.reach()
        notes = self._database.notes(app)
        slot = tables.slot
        seen = Seen(
            tables.system,
            tables.timeline,
            tables.switches.get(notes.timeline),
            tables.flushed,
            slot is not None,
            slot.confirmed if slot else None,
            slot.lost if slot else "",
        )
        shipped = notes.shipped.lsn if notes.shipped else 0
        known = Known(notes.epoch, notes.system, notes.timeline, notes.confirmed, shipped)
        if restarted(known, newest, seen):
            self._begin_epoch(notes, newest)
        tables = self._database.tables
        if tables.notes is not None and tables.notes.timeline < tables.timeline:
            tables.notes = replace(tables.notes, timeline=tables.timeline)
        return _capture(self._database.notes(app))

    def _begin_epoch(self, notes: Notes, newest: Position) -> None:
        database, tables = self._database, self._database.tables
        lsn = tables.flushed
        database.drop_slot()
        tables.slot = Slot(lsn, lsn)
        epoch = max(notes.epoch + 1, newest.epoch + 1, int(database.now()))
        tables.notes = Notes(
            epoch, False, tables.system, notes.partitions, lsn, lsn, timeline=tables.timeline,
            resets=notes.resets,
        )  # fmt: skip

    async def confirm(self, bookmark: Bookmark, resets: int) -> bool:
        """See ports.ledger."""
        tables = await self._database.reach()
        notes = self._database.notes(self._database.app)
        if notes.resets != resets:
            return False
        # Never back, and never into another history: a relay may wake up late.
        if bookmark.heads[0].position.epoch == notes.epoch and notes.confirmed <= bookmark.lsn:
            tables.notes = replace(notes, confirmed=bookmark.lsn, heads=bookmark.heads)
        return True

    async def ship(self, shipped: Shipped) -> None:
        """See ports.ledger."""
        tables = await self._database.reach()
        notes = self._database.notes(self._database.app)
        if shipped.heads[0].position.epoch == notes.epoch:
            tables.notes = replace(notes, shipped=shipped)

    async def tell(self, state: str) -> None:
        """See ports.ledger."""
        await self._database.reach()
        notes = self._database.notes(self._database.app)
        if notes.shipped is not None:
            told = notes.shipped._replace(state=state)
            self._database.tables.notes = replace(notes, shipped=told)

    async def survey(self) -> Survey:
        """See ports.ledger."""
        tables = await self._database.reach()
        notes = self._database.notes(self._database.app)
        needed = [Unit(name, n) for name in tables.projections for n in range(notes.partitions)]
        # Nothing is kept back for what is lost: it cannot be healed from here any more.
        found = [tables.progress.get(unit) for unit in needed]
        reached = [
            (progress.durable or BEGINNING) if progress is not None else BEGINNING
            for progress in found
            if progress is None or progress.state != "lost"
        ]
        everything = Position(notes.epoch, 2**63 - 1, 0) if needed else BEGINNING
        lowest = min(reached, default=everything)
        applied = None if lowest == BEGINNING else lowest
        rewinds = [
            Rewind(unit, asked.after)
            for unit, asked in tables.rewinds.items()
            if asked.reachable is None
        ]
        return Survey(applied, tuple(rewinds), notes.resets)

    async def answer(self, rewind: Rewind, *, reachable: bool) -> None:
        """See ports.ledger."""
        rewinds = (await self._database.reach()).rewinds
        asked = rewinds.get(rewind.unit)
        if asked is not None and asked.after == rewind.after:
            rewinds[rewind.unit] = asked._replace(reachable=reachable)

    async def register(self, app: str, projections: Sequence[str]) -> Capture:
        """See ports.ledger."""
        tables = await self._database.reach()
        notes = self._database.notes(app)
        tables.projections.update(dict.fromkeys(projections))
        return _capture(notes)

    async def history(self) -> Capture:
        """See ports.ledger."""
        await self._database.reach()
        return _capture(self._database.notes(self._database.app))

    async def begun_again(self) -> Capture:
        """See ports.ledger."""
        tables = await self._database.reach()
        notes = self._database.notes(self._database.app)
        tables.notes = replace(notes, resets=notes.resets + 1)
        return _capture(tables.notes)

    async def report(self, progress: Sequence[Progress]) -> bool:
        """See ports.ledger."""
        noted = 0
        tables = await self._database.reach()
        for reported in progress:
            before = tables.progress.get(reported.unit)
            if before is not None and before.token > reported.token:
                continue
            durable = reported.durable or (before and before.durable)
            if durable:
                durable = min(durable, reported.position)
            tables.progress[reported.unit] = reported._replace(durable=durable)
            noted += 1
        return noted == len(progress)

    async def wish(self, rewind: Rewind) -> None:
        """See ports.ledger."""
        tables = await self._database.reach()
        tables.rewinds[rewind.unit] = Asked(rewind.after, None)

    async def unreachable(self, unit: Unit) -> bool:
        """See ports.ledger."""
        asked = (await self._database.reach()).rewinds.get(unit)
        return asked is not None and asked.reachable is False

    async def flushed(self) -> int:
        """See ports.ledger."""
        return (await self._database.reach()).flushed


def _capture(notes: Notes) -> Capture:
    origin = settled(notes.epoch, notes.origin)
    heads = notes.heads or tuple(Head(origin, 0) for _ in range(notes.partitions))
    bookmark = Bookmark(notes.confirmed, heads)
    return Capture(notes.epoch, notes.complete, origin, notes.partitions, bookmark)
