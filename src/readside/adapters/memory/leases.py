"""Leases in the model of the write store, judged by its clock only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from readside.adapters.memory.database import Database, Leased, Tables
from readside.core.leases import LONGEST, RESETS, Unit, plan
from readside.core.position import Position
from readside.ports.ledger import Lease

_FREE = Leased(None, 0, float("-inf"))


class MemoryLeases:
    """Who works on which partition.

    Args:
        database: where the leases are.
        ttl: seconds after which a silent worker loses its units.
    """

    def __init__(self, database: Database, ttl: float) -> None:
        self._database = database
        self._ttl = ttl
        self._longest = max(ttl, LONGEST)

    async def tend(
        self,
        worker: str,
        units: Sequence[Unit],
        *,
        thriving: Collection[Unit] = (),
        alone: bool = False,
    ) -> list[Lease]:
        """See ports.ledger."""
        tables = await self._database.reach()
        now = self._database.now()
        self._appear(tables, worker, units)
        for unit in thriving:
            if tables.leases[unit].owner == worker:
                praised = tables.leases[unit]._replace(starts=0, attempting=None, tries=0)
                tables.leases[unit] = praised
        alive = [
            name
            for name, seen_at in tables.workers.items()
            if now - self._ttl < seen_at <= now + self._longest
        ]
        crew = [] if alone else alive
        view = {unit: self._owner(tables.leases[unit]) for unit in units}
        decided = plan(worker, crew, view)
        self._free(tables, decided.release)
        for unit, lease in tables.leases.items():
            if self._owner(lease) == worker:
                tables.leases[unit] = lease._replace(expires_at=now + self._ttl)
        self._take(tables, worker, decided.acquire)
        return self._held(tables, worker, units)

    async def outbid(self, worker: str, lease: Lease, token: int) -> Lease | None:
        """See ports.ledger."""
        tables = await self._database.reach()
        found = tables.leases.get(lease.unit, _FREE)
        if self._owner(found) != worker or found.token != lease.token:
            return None
        tables.leases[lease.unit] = found._replace(token=max(found.token, token) + 1)
        return lease._replace(token=tables.leases[lease.unit].token)

    async def attempt(self, lease: Lease, position: Position | None) -> int:
        """See ports.ledger."""
        tables = await self._database.reach()
        found = tables.leases.get(lease.unit, _FREE)
        if found.token != lease.token:
            return 0
        tries = found.tries + 1 if found.attempting == position else 1
        tries = 0 if position is None else tries
        tables.leases[lease.unit] = found._replace(attempting=position, tries=tries)
        return tries

    async def seize(self, worker: str, units: Sequence[Unit]) -> list[Lease]:
        """See ports.ledger."""
        tables = await self._database.reach()
        self._appear(tables, worker, units)
        self._take(tables, worker, units)
        return self._held(tables, worker, units)

    async def leave(self, worker: str) -> None:
        """See ports.ledger."""
        tables = await self._database.reach()
        self._free(tables, [unit for unit, lease in tables.leases.items() if lease.owner == worker])
        tables.workers.pop(worker, None)

    def _owner(self, lease: Leased) -> str | None:
        left = lease.expires_at - self._database.now()
        return lease.owner if 0 < left <= self._longest else None

    def _appear(self, tables: Tables, worker: str, units: Iterable[Unit]) -> None:
        tables.workers[worker] = self._database.now()
        for unit in units:
            tables.leases.setdefault(unit, _FREE)

    def _take(self, tables: Tables, worker: str, units: Iterable[Unit]) -> None:
        expires_at = self._database.now() + self._ttl
        for unit in units:
            found = tables.leases[unit]
            owner = self._owner(found) or ""
            if owner.startswith(RESETS) and owner != worker:
                continue  # never from under a reset: it is emptying documents
            reported = tables.progress.get(unit)
            token = max(found.token, reported.token if reported else 0) + 1
            tables.leases[unit] = found._replace(
                owner=worker, token=token, expires_at=expires_at, starts=found.starts + 1
            )

    def _free(self, tables: Tables, units: Iterable[Unit]) -> None:
        for unit in units:
            tables.leases[unit] = tables.leases[unit]._replace(
                owner=None, expires_at=float("-inf"), starts=0
            )

    def _held(self, tables: Tables, worker: str, units: Iterable[Unit]) -> list[Lease]:
        return [
            Lease(unit, tables.leases[unit].token, tables.leases[unit].starts)
            for unit in dict.fromkeys(units)
            if self._owner(tables.leases[unit]) == worker
        ]
