from __future__ import annotations

import psycopg
import pytest

from readside.adapters.postgres.leases import PostgresLeases
from readside.adapters.postgres.parking import PostgresParking
from readside.adapters.postgres.session import Session
from readside.core.position import Position
from readside.core.record import Record
from readside.operate.dead_letters import DeadLetters
from readside.testing.conformance.parking import ParkingContract

WHERE = "WHERE app = %s AND projection = %s AND partition = %s AND key = %s"


class TestPostgresParking(ParkingContract):
    @pytest.fixture(autouse=True)
    async def server(self, servers, make_app):
        app = make_app()
        runtime = await app.runtime()
        await runtime.install()
        self.app = app.name
        self.sessions = []
        self.dsn = servers.write_store
        self.client = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        yield
        await self.client.close()
        for session in self.sessions:
            await session.close()
        await app.close()

    async def make(self):
        self.sessions.append(Session(self.dsn, "test"))
        return PostgresParking(self.sessions[-1], self.app)

    async def waiting(self, unit, key):
        cursor = await self.client.execute(
            "SELECT partition, position, predecessor, nth, id, type, event_key, version, payload,"
            f" recorded_at, headers FROM readside.parked_events {WHERE}"
            " AND applied_at IS NULL ORDER BY position",
            [self.app, *unit, key],
        )
        return [
            Record(
                row[0], Position.decode(row[1]), Position.decode(row[2]), *row[3:8],
                bytes(row[8]), row[9], bytes(row[10]),
            )
            for row in await cursor.fetchall()
        ]  # fmt: skip

    async def applied(self, unit, key, until):
        await self.client.execute(
            f"UPDATE readside.parked_events SET applied_at = now() {WHERE} AND position <= %s",
            [self.app, *unit, key, until.encode()],
        )

    async def lease(self, unit):
        self.sessions.append(Session(self.dsn, "test"))
        leases = PostgresLeases(self.sessions[-1], self.app, 60.0)
        (lease,) = await leases.seize("worker", [unit])
        return lease.token

    async def free(self, unit, key):
        await self.client.execute(
            f"UPDATE readside.parked_events SET applied_at = now() {WHERE}", [self.app, *unit, key]
        )
        await self.client.execute(
            f"DELETE FROM readside.parked_documents {WHERE}", [self.app, *unit, key]
        )

    async def discard(self, unit, key, *, whole):
        self.sessions.append(Session(self.dsn, "test"))
        letters = DeadLetters(self.sessions[-1], self.app)
        (document,) = await letters.find(unit.projection, key)
        assert await letters.discard(document, whole=whole)
