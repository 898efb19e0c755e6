"""Stores in PostgreSQL whose projections have tables, and what is in those."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest
import pytest_asyncio

import readside
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.folding import Batch, Write
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.core.table import Table
from readside.ports.store import Outcome

FIRST = Checkpoint(Position(1, 1, 1), 1, "", 1)


@pytest_asyncio.fixture
async def declared(servers, unique):
    """Makes an open store in which one projection is declared; the table of its own is empty."""

    async def make(view: type, table: Table | None = None, *, name: str = "doc") -> PostgresStore:
        store = PostgresStore(servers.write_store)
        stores.append(store)
        store.declare({name: Projection(name, view, table=table)})
        store.done = await store.prepare(unique)
        await store.open(unique, [name])
        return store

    stores: list[PostgresStore] = []
    yield make
    for store in stores:
        await store.close()


@pytest.fixture
def ask(servers):
    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(servers.write_store, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    return ask


async def put(store: PostgresStore, documents: dict[str, Any], nth: int = 1) -> Outcome:
    found = (await store.checkpoints("doc", [0])).get(0)
    stored = await store.load("doc", list(documents))
    writes = tuple(
        Write(key, was.positions, f"0:{nth}", None if one is None else msgspec.json.encode(one))
        for (key, one), was in zip(documents.items(), stored, strict=True)
    )
    return await store.apply(Batch("doc", 0, found, FIRST._replace(nth=nth), writes))


async def get(store: PostgresStore, view: Any, key: str) -> Any:
    (document,) = (await store.read("doc", [key])).documents
    return None if document is None else msgspec.json.decode(document, type=view)


class Numbered(readside.View):
    id: int
    name: str
