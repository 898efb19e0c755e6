"""Parked documents in the model of the write store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from readside.adapters.memory.database import Database, Tables
from readside.core.errors import LeaseLostError
from readside.core.leases import Unit
from readside.core.position import Position
from readside.ports.ledger import Hold, Parked, Waiting


class MemoryParking:
    """Documents which cannot move on."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        tables = await self._database.reach()
        leased = tables.leases.get(unit)
        if token is not None and (leased is None or leased.token != token):
            raise LeaseLostError("a newer owner has the lease")
        for step, error, _ in steps:
            if error is not None and (unit, step.key) not in tables.parked_documents:
                tables.parkings += 1
                hold = Hold(str(tables.parkings), step.record.position)
                tables.parked_documents[unit, step.key] = hold
        holds = {}
        for step, error, base in steps:
            found = tables.parked_documents.get((unit, step.key))
            if found is not None:
                name = (unit, step.key, step.record.position)
                again = tables.retried.pop(name, None)
                if again is not None:
                    tables.parked_events[name] = again
                needs = base if error is not None else self._before(tables, name)
                tables.parked_events.setdefault(name, Waiting(step.record, needs))
                holds[step.key] = found
        return holds

    def _before(self, tables: Tables, name: tuple[Unit, str, Position]) -> str:
        names = [*tables.parked_events, *tables.retried]
        before = [other[2] for other in names if other[:2] == name[:2] and other[2] < name[2]]
        return max(before).encode() if before else ""

    async def retried(self, unit: Unit, until: Position) -> Sequence[tuple[str, Waiting]]:
        """See ports.ledger."""
        tables = await self._database.reach()
        return [
            (key, tables.retried[parked, key, position])
            for parked, key, position in sorted(tables.retried)
            if parked == unit and position <= until
        ]

    async def waiting(self, unit: Unit, key: str) -> list[Waiting]:
        """The events that wait for a document, in order: for those who retry them."""
        tables = await self._database.reach()
        found = [name for name in tables.parked_events if name[:2] == (unit, key)]
        return [tables.parked_events[name] for name in sorted(found)]

    async def applied(self, unit: Unit, key: str, until: Position) -> None:
        """Note that a retry has applied the events up to a position."""
        tables = await self._database.reach()
        found = [name for name in tables.parked_events if name[:2] == (unit, key)]
        for name in found:
            if name[2] <= until:
                tables.retried[name] = tables.parked_events.pop(name)

    async def free(self, unit: Unit, key: str) -> bool:
        """Let a document move on, if nothing waits for it; say whether it may."""
        tables = await self._database.reach()
        if any(name[:2] == (unit, key) for name in tables.parked_events):
            return False
        tables.parked_documents.pop((unit, key), None)
        return True
