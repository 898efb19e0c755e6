"""What tests of polling share: an app, its poller, and whoever writes."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest

from readside.adapters.postgres.polling import PollingSource
from readside.testing.conformance.source import EPOCH

RECORD = "SELECT readside.record(%s, 'thing.done', %s, %s::json)"


class World:
    """One app, its poller, and whoever writes."""

    def __init__(self, dsn, app):
        self.dsn, self.app = dsn, app
        self.clients = []

    async def client(self):
        made = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        self.clients.append(made)
        return made

    async def ask(self, statement, *values):
        given = values or ([self.app] if "%s" in statement else None)
        return (await (await self.clients[0].execute(statement, given)).fetchone())[0]

    async def record(self, client, key, number):
        await client.execute(RECORD, [self.app, key, json.dumps(number)])

    async def begin(self):
        client = await self.client()
        await client.execute("BEGIN")
        return client

    async def holds_up_the_poller(self, client):
        """Wait until the poller waits for a client."""
        async with asyncio.timeout(60):
            while not await self.ask(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'readside poller'"
                " AND %s = ANY(pg_blocking_pids(pid)))",
                client.info.backend_pid,
            ):
                await asyncio.sleep(0.01)

    def source(self, **options):
        return PollingSource(options.pop("dsn", self.dsn), self.app, EPOCH, **options)

    async def start(self, source):
        await source.start(await self.ask("SELECT origin_lsn FROM readside.capture WHERE app = %s"))
        return source


def numbers(events):
    return [json.loads(event.payload) for event in events]


@pytest.fixture
async def world(servers, make_app):
    app = make_app(capture="polling")
    await (await app.runtime()).install()
    world = World(servers.write_store, app.name)
    await world.client()
    yield world
    for client in world.clients:
        await client.close()
    await app.close()


@pytest.fixture
async def source(world):
    source = await world.start(world.source())
    yield source
    await source.close()
