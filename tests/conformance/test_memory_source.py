from __future__ import annotations

import pytest

from readside.adapters.memory.database import Database, Recorded
from readside.adapters.memory.source import MemorySource
from readside.testing.conformance.source import EPOCH, SourceContract


def recorded(rows):
    return [Recorded(row.type, row.key, row.payload, row.version, row.headers) for row in rows]


class TestMemorySource(SourceContract):
    traits = MemorySource.traits

    @pytest.fixture(autouse=True)
    async def server(self):
        self.database = Database("app", 4)
        self.database.install()

    async def make(self):
        return MemorySource(self.database, EPOCH)

    async def beginning(self):
        return self.database.tables.notes.origin

    async def commit(self, *some):
        self.database.commit(*recorded(some))

    async def roll_back(self, *some):
        self.database.advance(16 * len(some))

    async def interleave(self, first, second):
        for row in (second, first):
            self.database.commit(*recorded([row]))

    async def pass_time(self):
        self.database.advance()

    async def confirmed(self):
        return self.database.tables.slot.confirmed

    async def lose(self):
        self.database.drop_slot()

    async def test_what_is_on_disk_is_freed_and_a_crash_forgets_the_rest(self):
        database, source = self.database, await self.make()
        await source.start(await self.beginning())
        first, second, third = (database.commit(*recorded(some)) for some in self._three())
        await source.settle(first.end)
        assert database.retained == [first, second, third]
        database.checkpoint()
        assert database.retained == [second, third]
        await source.settle(second.end)
        database.crash()
        again = await self.make()
        await again.start(await self.beginning())
        found = [*(await again.read(0)).events, *(await again.read(0)).events]
        assert [event.position.lsn for event in found] == [
            second.lsn,
            third.lsn,
        ]

    def _three(self):
        from readside.testing.conformance.source import rows

        return [rows(number, number) for number in (1, 2, 3)]


class TestStutteringMemorySource(TestMemorySource):
    async def make(self):
        return MemorySource(self.database, EPOCH, 7, stutter=True)
