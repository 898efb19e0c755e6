from __future__ import annotations

import psycopg
import pytest

from readside.adapters.postgres.installation import Names
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.session import Session
from readside.testing.conformance.ledger import LedgerContract


class TestPostgresLedger(LedgerContract):
    app = ""
    capture = "replication"

    @pytest.fixture(autouse=True)
    async def server(self, servers, make_app):
        app = make_app(capture=self.capture)
        runtime = await app.runtime()
        await runtime.install()
        self.dsn, self.app = servers.write_store, app.name
        self.client = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        yield
        await self.client.close()
        await app.close()

    async def make(self):
        return PostgresLedger(Session(self.dsn, "test"), self.app)

    async def done(self, ledger):
        await ledger.close()

    async def pass_time(self):
        await self.client.execute("SELECT pg_logical_emit_message(true, 'elsewhere', 'x')")

    async def lose_slot(self):
        await self.client.execute("SELECT pg_drop_replication_slot(%s)", [Names(self.app).slot])


class TestPostgresLedgerOfPolling(TestPostgresLedger):
    capture = "polling"

    async def lose_slot(self):
        await self.client.execute("DELETE FROM readside.ticks WHERE app = %s", [self.app])
