from __future__ import annotations

import pytest

from readside.adapters.memory.broker import Log, MemoryBroker
from readside.testing.conformance.broker import BrokerContract


class TestMemoryBroker(BrokerContract):
    traits = MemoryBroker.traits

    @pytest.fixture(autouse=True)
    def server(self):
        self.log = Log()

    async def make(self):
        return MemoryBroker(self.log)

    async def wipe(self, app):
        self.log.wipe()

    async def truncate(self, app, partition, keep):
        self.log.truncate(partition, keep)
