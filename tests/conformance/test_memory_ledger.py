from __future__ import annotations

import pytest

from readside.adapters.memory.database import Database
from readside.adapters.memory.ledger import MemoryLedger
from readside.testing.conformance.ledger import LedgerContract


class TestMemoryLedger(LedgerContract):
    app = "app"

    @pytest.fixture(autouse=True)
    async def server(self):
        self.database = Database("app", 4)
        self.database.install()

    async def make(self):
        return MemoryLedger(self.database)

    async def pass_time(self):
        self.database.advance()

    async def lose_slot(self):
        self.database.drop_slot()

    async def test_a_restore_takes_the_notes_back(self):
        ledger = MemoryLedger(self.database)
        before = await ledger.capture("app")
        backup = self.database.snapshot()
        self.database.advance()
        await ledger.register("app", ["a"])
        self.database.restore(backup, slot=True)
        assert await ledger.capture("app") == before
        self.database.restore(backup)
        assert (await ledger.capture("app")).epoch > before.epoch
