from __future__ import annotations

from typing import ClassVar

import psycopg
import pytest

from readside.adapters.postgres.capture import PostgresSource
from readside.adapters.postgres.installation import Names
from readside.adapters.postgres.polling import PollingSource
from readside.adapters.postgres.source import SlotSource
from readside.core.position import parse_lsn
from readside.testing.conformance.source import EPOCH, Row, SourceContract, told

RECORD = "SELECT readside.record(%s, %s, %s, %s::json, %s, %s::json)"


class TestSlotSource(SourceContract):
    traits = SlotSource.traits
    settings: ClassVar = {"capture": "replication"}
    record = RECORD

    @pytest.fixture(autouse=True)
    async def server(self, servers, make_app):
        app = make_app(**self.settings)
        runtime = await app.runtime()
        await runtime.install()
        self.dsn, self.app = servers.write_store, app.name
        self.client = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        self.start = await self._ask("SELECT origin_lsn FROM readside.capture WHERE app = %s")
        yield
        await self.client.close()
        await app.close()

    async def _ask(self, statement, *values):
        cursor = await self.client.execute(statement, values or [self.app])
        return (await cursor.fetchone())[0]

    async def _record(self, client, rows):
        async with client.cursor() as cursor:
            await cursor.executemany(
                self.record,
                [
                    (
                        self.app,
                        row.type,
                        row.key,
                        row.payload.decode(),
                        row.version,
                        row.headers.decode() or None,
                    )
                    for row in rows
                ],
            )

    async def make(self):
        return SlotSource(self.dsn, self.app, EPOCH)

    async def beginning(self):
        return self.start

    async def commit(self, *some):
        async with self.client.transaction():
            await self._record(self.client, some)

    async def roll_back(self, *some):
        async with self.client.transaction(force_rollback=True):
            await self._record(self.client, some)

    async def interleave(self, first, second):
        async with (
            await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as other,
            self.client.transaction(),
        ):
            await self._record(self.client, [first])
            async with other.transaction():
                await self._record(other, [second])

    async def pass_time(self):
        await self._ask("SELECT pg_logical_emit_message(true, 'elsewhere', %s)", "x" * 100)

    async def confirmed(self):
        return parse_lsn(
            await self._ask(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
                Names(self.app).slot,
            )
        )

    async def test_heavy_events_come_in_chunks_of_bounded_size(self):
        heavy = [Row(f"key-{n}", b'"%s"' % (b"x" * 900_000)) for n in range(80)]
        source = await self.make()
        await source.start(await self.beginning())
        try:
            await self.commit(*heavy)
            sizes, events = [], []
            while len(events) < len(heavy):
                chunk = await source.read(5.0)
                sizes.append(sum(len(event.payload) for event in chunk.events))
                events += chunk.events
        finally:
            await source.close()
        assert told(events) == heavy
        assert max(sizes) < 24 * 1024**2, sizes

    async def lose(self):
        async def held():
            return await self._ask(
                "SELECT active FROM pg_replication_slots WHERE slot_name = %s", Names(self.app).slot
            )

        while await held():
            pass
        await self._ask("SELECT pg_drop_replication_slot(%s)", Names(self.app).slot)


class TestSlotSourceOfMessages(TestSlotSource):
    """Events that never were in a table."""

    settings: ClassVar = {"outbox": "message"}
    record = "SELECT readside.record_message(%s, %s, %s, %s::json, %s, %s::json)"


class TestSlotSourceOfBoth(TestSlotSource):
    """Rows and messages by turns, within a transaction too."""

    settings: ClassVar = {"outbox": "message"}

    async def _record(self, client, rows):
        for number, some in enumerate(rows):
            self.record = (RECORD, TestSlotSourceOfMessages.record)[number % 2]
            await super()._record(client, [some])


class TestPollingSource(TestSlotSource):
    traits = PollingSource.traits
    settings: ClassVar = {"capture": "polling"}

    async def make(self):
        return PollingSource(self.dsn, self.app, EPOCH)

    async def confirmed(self):
        return await self._ask("SELECT settled_lsn FROM readside.pollers WHERE app = %s")

    async def lose(self):
        await self.client.execute("DELETE FROM readside.ticks WHERE app = %s", [self.app])


class TestPostgresSource(TestSlotSource):
    """Which finds out by itself how it has to capture."""

    traits = PostgresSource.traits

    async def make(self):
        return PostgresSource(self.dsn, self.app, EPOCH)
