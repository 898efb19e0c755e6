"""Parked documents in the model of the write store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from readside.adapters.memory.database import Database, Tables
from readside.core.errors import LeaseLostError, UnavailableError
from readside.core.folding import Step
from readside.core.leases import Unit
from readside.core.position import Position
from readside.ports.ledger import PAGE, PAGE_BYTES, Hold, Parked, Waiting

#: Of a parked event.
Name = tuple[Unit, str, Position]


class MemoryParking:
    """Documents which cannot move on.

    Args:
        database: where they are.
        page: retried events that are told at once.
    """

    def __init__(self, database: Database, page: int = PAGE) -> None:
        self._database = database
        self._page = page

    async def parked(self, unit: Unit) -> Mapping[str, Hold]:
        """See ports.ledger."""
        tables = await self._database.reach()
        return {
            key: hold for (parked, key), hold in tables.parked_documents.items() if parked == unit
        }

    async def park(
        self, unit: Unit, steps: Sequence[Parked], token: int | None = None
    ) -> Mapping[str, Hold]:
        """See ports.ledger."""
        async with self._database.locked(*((unit, step.key) for step, _, _ in steps)):
            return self._put_away(await self._database.reach(), unit, steps, token)

    def _put_away(
        self, tables: Tables, unit: Unit, steps: Sequence[Parked], token: int | None
    ) -> Mapping[str, Hold]:
        leased = tables.leases.get(unit)
        if token is not None and (leased is None or leased.token != token):
            raise LeaseLostError("a newer owner has the lease")
        for step, error, base in steps:
            if error is not None:
                self._hold(tables, unit, step, base)
        holds = {}
        for step, error, base in steps:
            found = tables.parked_documents.get((unit, step.key))
            if found is not None:
                name = (unit, step.key, step.record.position)
                tables.retried.pop(name, None)
                needs = base if error is not None else tables.parked_bases[unit, step.key]
                tables.parked_events[name] = Waiting(step.record, needs)
                holds[step.key] = found
        return holds

    def _hold(self, tables: Tables, unit: Unit, step: Step, base: str) -> None:
        name, since = (unit, step.key), step.record.position
        hold = tables.parked_documents.get(name)
        if hold is None:
            tables.parkings += 1
            hold = Hold(str(tables.parkings), since)
        elif since >= hold.since:
            return
        tables.parked_documents[name] = hold._replace(since=since)
        tables.parked_bases[name] = base

    async def retried(
        self, unit: Unit, until: Position, after: tuple[str, Position] | None = None
    ) -> Sequence[tuple[str, Waiting]]:
        """See ports.ledger."""
        tables = await self._database.reach()
        page: list[tuple[str, Waiting]] = []
        size = 0
        for name in sorted(tables.retried):
            if name[0] != unit or name[2] > until or (after is not None and name[1:] <= after):
                continue
            if len(page) == self._page or size >= PAGE_BYTES:
                break
            page.append((name[1], _needing(tables, name)))
            size += len(tables.retried[name].record.payload)
        return page

    async def waiting(self, unit: Unit, key: str) -> list[Waiting]:
        """The events that wait for a document, in order: for those who retry them."""
        tables = await self._database.reach()
        found = [name for name in tables.parked_events if name[:2] == (unit, key)]
        return [_needing(tables, name) for name in sorted(found)]

    async def remembered(self, unit: Unit, key: str) -> list[Waiting]:
        """Those of a document that a retry has applied, in order."""
        tables = await self._database.reach()
        found = [name for name in tables.retried if name[:2] == (unit, key)]
        return [_needing(tables, name) for name in sorted(found)]

    async def applied(self, unit: Unit, key: str, until: Position) -> None:
        """Note that a retry has applied the events up to a position."""
        tables = await self._database.reach()
        found = [name for name in tables.parked_events if name[:2] == (unit, key)]
        for name in found:
            if name[2] <= until:
                tables.retried[name] = tables.parked_events.pop(name)

    async def discard(self, unit: Unit, key: str, position: Position, *, whole: bool) -> int:
        """Give up the event that fails, or all that wait; say how many."""
        return len(self._give_up(await self._database.reach(), unit, key, position, whole=whole))

    def _give_up(
        self, tables: Tables, unit: Unit, key: str, position: Position, *, whole: bool
    ) -> list[Name]:
        events = tables.parked_events
        of_document = sorted(name for name in events if name[:2] == (unit, key))
        gone = of_document if whole else [name for name in of_document if name[2] == position]
        for name in gone:
            needs = _needing(tables, name).base
            del events[name]
            # What waits for this one, waits for what this one has waited for, no longer for itself.
            for other in of_document:
                if other in events and events[other].base == name[2].encode():
                    events[other] = events[other]._replace(base=needs)
        return gone

    @asynccontextmanager
    async def freeing(self, unit: Unit, key: str) -> AsyncIterator[bool]:
        """The transaction which lets a document move on if nothing waits for it; whether it may.

        Raises:
            UnavailableError: the server went away before the end; the document is as it was.
        """
        async with self._database.locked((unit, key)):
            tables, outages = await self._database.reach(), self._database.outages
            idle = not any(name[:2] == (unit, key) for name in tables.parked_events)
            yield idle
            if self._database.outages > outages:
                raise UnavailableError("The connection to the database in memory broke.")
            if idle:
                tables.parked_documents.pop((unit, key), None)
                tables.parked_bases.pop((unit, key), None)

    async def free(self, unit: Unit, key: str) -> bool:
        """Let a document move on, if nothing waits for it; say whether it may."""
        async with self.freeing(unit, key) as idle:
            return idle


def _needing(tables: Tables, name: Name) -> Waiting:
    """A parked event with what its document must contain before; see adapters.postgres.parking.PARKED."""
    event = tables.parked_events.get(name) or tables.retried[name]
    before = [
        other[2].encode()
        for other in (*tables.parked_events, *tables.retried)
        if other[:2] == name[:2] and other[2] < name[2]
    ]
    return event._replace(base=max([event.base, *before]))
