"""Parked documents in the model of the write store."""

from __future__ import annotations

from collections.abc import Sequence

from readside.adapters.memory.database import Database
from readside.core.leases import Unit
from readside.core.record import Record
from readside.ports.ledger import Parked


class MemoryParking:
    """Documents which cannot move on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def parked(self, unit: Unit) -> frozenset[str]:
        """See ports.ledger."""
        tables = await self._database.reach()
        return frozenset(key for parked, key in tables.parked_documents if parked == unit)

    async def park(self, unit: Unit, steps: Sequence[Parked]) -> frozenset[str]:
        """See ports.ledger."""
        tables = await self._database.reach()
        for step, error in steps:
            if error is not None:
                tables.parked_documents.setdefault((unit, step.key), str(error))
        freed = set()
        for step, _ in steps:
            if (unit, step.key) in tables.parked_documents:
                name = (unit, step.key, step.record.position)
                tables.parked_events.setdefault(name, step.record)
            else:
                freed.add(step.key)
        return frozenset(freed)

    async def waiting(self, unit: Unit, key: str) -> list[Record]:
        """The events that wait for a document, in order: for those who retry them."""
        tables = await self._database.reach()
        found = [name for name in tables.parked_events if name[:2] == (unit, key)]
        return [tables.parked_events[name] for name in sorted(found)]

    async def free(self, unit: Unit, key: str) -> None:
        """Forget a document and what waits for it: it may move on."""
        tables = await self._database.reach()
        tables.parked_documents.pop((unit, key), None)
        for name in [name for name in tables.parked_events if name[:2] == (unit, key)]:
            del tables.parked_events[name]
