"""The documents of the demo, read from the read store's own client, without any of readside's code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import psycopg
from psycopg.rows import dict_row
from redis.asyncio import Redis

#: Where PostgreSQL has them.
TABLE = 'shop."user"'


class Documents(Protocol):
    """A read store."""

    #: What it is, for people, and how a document is asked for there.
    name: str

    def question(self, id_: int) -> str:
        """How to ask it for a user."""

    async def find(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        """The users with these numbers."""


class _InValkey:
    name = "Valkey"

    def __init__(self, client: Any) -> None:
        self._client = client

    def question(self, id_: int) -> str:
        return f"GET user:{id_}"

    async def find(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        found = await self._client.mget([f"user:{id_}" for id_ in ids])
        return [None if text is None else msgspec.json.decode(text) for text in found]


class _InPostgres:
    name = "PostgreSQL"

    def __init__(self, connection: psycopg.AsyncConnection[dict[str, Any]]) -> None:
        self._connection = connection

    def question(self, id_: int) -> str:
        return f"SELECT * FROM {TABLE} WHERE key = '{id_}'"

    async def find(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        cursor = await self._connection.execute(
            f"SELECT * FROM {TABLE} WHERE key = ANY (%s)".encode(), [[str(id_) for id_ in ids]]
        )
        found = {row.pop("key"): row for row in await cursor.fetchall()}
        return [found.get(str(id_)) for id_ in ids]


@asynccontextmanager
async def documents(read_store: str) -> AsyncIterator[Documents]:
    """Open the read store."""
    if read_store.startswith("postgresql"):
        async with await psycopg.AsyncConnection.connect(
            read_store, autocommit=True, row_factory=dict_row
        ) as connection:
            yield _InPostgres(connection)
        return
    client: Any = Redis.from_url(read_store)
    try:
        yield _InValkey(client)
    finally:
        await client.aclose()
