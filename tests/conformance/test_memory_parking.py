from __future__ import annotations

import pytest

from readside.adapters.memory.database import Database
from readside.adapters.memory.leases import MemoryLeases
from readside.adapters.memory.parking import MemoryParking
from readside.core.position import Position
from readside.testing.conformance.parking import ParkingContract


class TestMemoryParking(ParkingContract):
    @pytest.fixture(autouse=True)
    def server(self):
        self.database = Database("app", 4)

    async def make(self):
        return MemoryParking(self.database)

    async def waiting(self, unit, key):
        events = self.database.tables.parked_events
        return [events[name].record for name in sorted(events) if name[:2] == (unit, key)]

    async def applied(self, unit, key, until):
        await MemoryParking(self.database).applied(unit, key, until)

    async def lease(self, unit):
        (lease,) = await MemoryLeases(self.database, 60.0).seize("worker", [unit])
        return lease.token

    async def free(self, unit, key):
        await self.applied(unit, key, Position(2**31, 0, 0))
        assert await MemoryParking(self.database).free(unit, key)

    async def discard(self, unit, key, *, whole):
        waiting = await self.waiting(unit, key)
        parking = MemoryParking(self.database)
        assert await parking.discard(unit, key, waiting[0].position, whole=whole)
