"""Whom readside waits for while PostgreSQL makes a slot is said, with the mend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

import readside
from readside.adapters.embedded import EmbeddedServers
from readside.adapters.postgres import history
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import Session
from readside.apps.cli.table import advice
from readside.core.errors import UnavailableError
from readside.core.position import BEGINNING
from readside.operate import status as operate

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """A server that knows prepared transactions."""
    for _ in range(2):
        group = EmbeddedServers(tmp_path, services=frozenset({"postgres"}), durable=False)
        dsn = (await group.start()).write_store
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as client:
            cursor = await client.execute("SHOW max_prepared_transactions")
            if await cursor.fetchone() != ("0",):
                break
            await client.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
        group.stop_now()
    yield dsn
    group.stop_now()


async def writing(dsn: str) -> psycopg.AsyncConnection:
    """A transaction that has written and stays open."""
    client = await psycopg.AsyncConnection.connect(dsn, application_name="a report")
    await client.execute("CREATE TABLE report (line text)")
    return client


async def test_the_status_names_a_long_transaction(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await install(server, "shop", 4, 1000)
    client = await writing(server)
    try:
        assert (await operate.status(server, "shop")).relay.held_up_by == ""
        monkeypatch.setattr(operate, "_LONG", 0.5)
        assert (await operate.status(server, "shop")).relay.held_up_by == ""
        monkeypatch.setattr(operate, "_KEPT", -1)
        await asyncio.sleep(1)
        seen = await operate.status(server, "shop")
        name = f"PID {client.info.backend_pid} of user readside (a report), idle in transaction for"
        assert seen.relay.held_up_by.startswith(name)
        assert any(name in line for line in advice(seen, "shop:app"))
        await client.execute("PREPARE TRANSACTION 'report'")
        seen = await operate.status(server, "shop")
        while not seen.relay.held_up_by:  # it is not old enough
            seen = await operate.status(server, "shop")
        assert seen.relay.held_up_by.startswith("the prepared transaction 'report' of user")
    finally:
        await client.close()


async def said(caplog: pytest.LogCaptureFixture, words: str) -> str:
    async with asyncio.timeout(60):
        while not (found := [text for text in caplog.messages if words in text]):
            await asyncio.sleep(0.1)
    return found[0]


async def test_init_says_whom_it_waits_for(server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "readside.init")
    client = await writing(server)
    pid = client.info.backend_pid
    installing = asyncio.create_task(install(server, "shop", 4, 1000))
    try:
        text = await said(caplog, f"init waits for PID {pid} of user readside (a report), idle in")
        assert "CREATE TABLE report" in text
        assert f"mend: let it end, or SELECT pg_terminate_backend({pid})" in text
        other = asyncio.create_task(install(server, "shop", 4, 1000))
        await said(caplog, "(readside init), active for")
        assert not installing.done()
        await client.execute("PREPARE TRANSACTION 'bob''s'")
        text = await said(caplog, "init waits for the prepared transaction 'bob''s'")
        assert "in that database: ROLLBACK PREPARED 'bob''s'" in text
        assert not installing.done()
        await client.commit()
        await client.set_autocommit(True)
        await client.execute("ROLLBACK PREPARED 'bob''s'")
        assert any("replication slot" in done for done in await installing)
        assert not any("replication slot" in done for done in await other)
    finally:
        await client.close()


async def test_a_new_epoch_says_whom_it_waits_for(
    servers, make_app: Callable[..., readside.App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_SLOT_PATIENCE", 4.0)
    app = make_app()
    await (await app.runtime()).install()
    await app.close()
    session = Session(servers.write_store, "test")
    await session.query("SELECT pg_drop_replication_slot(%s)", [Names(app.name).slot])
    client = await writing(servers.write_store)
    try:
        with pytest.raises(UnavailableError) as caught:
            await history.follow(session, app.name, BEGINNING)
        pid = client.info.backend_pid
        assert f"PID {pid} of user" in caught.value.detail
        assert f"SELECT pg_terminate_backend({pid})" in caught.value.mend
        await client.rollback()
        await history.follow(session, app.name, BEGINNING)
        query = "SELECT complete FROM readside.capture WHERE app = %s"
        assert await session.query(query, [app.name]) == [(False,)]
    finally:
        await client.close()
        await session.close()
