from __future__ import annotations

import psycopg
import pytest

from readside.adapters.postgres.leases import PostgresLeases
from readside.adapters.postgres.session import Session
from readside.testing.conformance.leases import LeasesContract


class TestPostgresLeases(LeasesContract):
    @pytest.fixture(autouse=True)
    async def server(self, servers, make_app):
        app = make_app()
        runtime = await app.runtime()
        await runtime.install()
        self.dsn, self.app = servers.write_store, app.name
        self.sessions = []
        yield
        for session in self.sessions:
            await session.close()
        await app.close()

    async def make(self):
        self.sessions.append(Session(self.dsn, "test"))
        return PostgresLeases(self.sessions[-1], self.app, self.ttl)

    async def elapse(self, seconds):
        """Not the clock goes on, but everything noted by it goes back: the same to who compares."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as client:
            for column, table in (("expires_at", "leases"), ("seen_at", "workers")):
                await client.execute(
                    f"UPDATE readside.{table} SET {column} = {column} - make_interval(secs => %s)"
                    " WHERE app = %s",
                    [seconds, self.app],
                )

    async def step_back(self, seconds):
        await self.elapse(-seconds)
