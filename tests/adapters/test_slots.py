"""A slot belongs to a database: a copy of it in the same server must leave the original's alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import psycopg
import pytest
import pytest_asyncio

import readside
from readside.adapters.postgres.history import drop_read_slot
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.source import SlotSource
from readside.core.errors import RefusedError

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def copy(servers, unique: str) -> AsyncIterator[str]:
    """Another database of the same server."""
    async with await psycopg.AsyncConnection.connect(
        servers.write_store, autocommit=True
    ) as client:
        await client.execute(f"CREATE DATABASE {unique}_copy".encode())
        yield urlsplit(servers.write_store)._replace(path=f"/{unique}_copy").geturl()
        await client.execute(f"DROP DATABASE {unique}_copy WITH (FORCE)".encode())


async def slot_of(client: psycopg.AsyncConnection, app: str) -> tuple:
    cursor = await client.execute(
        "SELECT database = current_database(), active, restart_lsn::text, active_pid"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [Names(app).slot],
    )
    return await cursor.fetchone()


@pytest.mark.parametrize("read", [False, True], ids=["idle", "read"])
async def test_a_copy_of_the_database_leaves_the_slot_alone(
    servers, make_app: Callable[..., readside.App], copy: str, read: bool
) -> None:
    app = make_app()
    await (await app.runtime()).install()
    await app.close()
    source = SlotSource(servers.write_store, app.name, 1)
    async with (
        await psycopg.AsyncConnection.connect(servers.write_store, autocommit=True) as client,
        await psycopg.AsyncConnection.connect(copy, autocommit=True) as other,
    ):
        try:
            if read:
                cursor = await client.execute(
                    "SELECT origin_lsn FROM readside.capture WHERE app = %s", [app.name]
                )
                await source.start((await cursor.fetchone())[0])
            before = await slot_of(client, app.name)
            assert before[:2] == (True, read)
            with pytest.raises(
                RefusedError, match=r"(?s)belongs to database readside .*another name"
            ):
                await install(copy, app.name, 8, 1_000_000)
            await drop_read_slot(other, Names(app.name).slot)  # as a new epoch would
            assert await slot_of(client, app.name) == before
        finally:
            await source.close()
