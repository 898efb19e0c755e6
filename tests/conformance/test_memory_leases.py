from __future__ import annotations

import pytest

from readside.adapters.memory.database import Database
from readside.adapters.memory.leases import MemoryLeases
from readside.testing.conformance.leases import LeasesContract


class TestMemoryLeases(LeasesContract):
    @pytest.fixture(autouse=True)
    def server(self):
        self.now = 0.0
        self.database = Database("app", 4, lambda: self.now)

    async def make(self):
        return MemoryLeases(self.database, self.ttl)

    async def elapse(self, seconds):
        self.now += seconds

    async def step_back(self, seconds):
        self.database.step_back(seconds)
