from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
import pytest_asyncio

import readside
from readside.adapters.embedded import EmbeddedServers
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.projection import Projection
from readside.core.table import Table
from readside.testing.conformance.store import StoreContract

APP = "one_app"


class Text(readside.View):
    text: str


def every_character() -> str:
    """All that PostgreSQL can hold: it has no NUL."""
    found = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x11000)]))
    return found * 8


@pytest.fixture(scope="module")
def own_servers() -> Iterator[EmbeddedServers]:
    """A PostgreSQL that may be killed, and whose disk can be relied on."""
    group = EmbeddedServers(None, services=frozenset({"postgres"}), durable=True)
    try:
        asyncio.run(group.start())
        yield group
    finally:
        group.stop_now()


class TestPostgresStore(StoreContract):
    traits = PostgresStore.traits
    view: type[Any] = Text

    @pytest_asyncio.fixture(autouse=True)
    async def server(self, own_servers, projection):
        self.servers, self.made = own_servers, []
        self.url = (await own_servers.start()).write_store
        names = [projection, f"{projection}-2"]
        self.projections = {
            name: Projection(name, self.view, table=Table(name=f"views.{name}")) for name in names
        }
        store = PostgresStore(self.url)
        store.declare(self.projections)
        await store.prepare(APP)
        await store.close()

    async def make(self):
        store = PostgresStore(self.url)
        store.declare(self.projections)
        await store.open(APP)
        self.made.append(store)
        return store

    async def lose(self):
        self.servers["postgres"].kill()
        await self.servers["postgres"].start()

    def doc(self, text):
        return msgspec.json.encode(Text(text))

    def impossible(self):
        return self.doc("\0")

    def blob(self):
        return self.doc(every_character())

    async def peek(self, name):
        projection, _, key = name.partition(":")
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            found = await (
                await connection.execute(
                    f'SELECT text FROM views."{projection}" WHERE key = %s'.encode(), [key]
                )
            ).fetchone()
        return self.doc(found[0]) if found else None


class TestPostgresStoreOfDocuments(TestPostgresStore):
    """A view without fields has one column of JSON."""

    view = str

    def doc(self, text):
        return msgspec.json.encode(text)

    async def peek(self, name):
        projection, _, key = name.partition(":")
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            found = await (
                await connection.execute(
                    f'SELECT document FROM views."{projection}" WHERE key = %s'.encode(), [key]
                )
            ).fetchone()
        return self.doc(found[0]) if found else None
