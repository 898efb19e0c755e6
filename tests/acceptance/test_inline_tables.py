"""The tables of inline projections: how they are made, moved, forgotten, and not begun unasked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.acceptance import accounts
from tests.acceptance.accounts import Account, Opened, Paid, Seen, World

import readside
from readside.apps.cli import operate
from readside.core.errors import SchemaError, SettingsError

world = accounts.world


async def test_it_cannot_be_reset_but_forgotten(world: World, capsys: Any) -> None:
    await world.write(Opened(1, "Ada"))
    with pytest.raises(readside.RefusedError, match="nothing would fill it again"):
        await operate.reset(world.app, "account", give_up=False, yes=True, json=False)
    with pytest.raises(SettingsError, match="nothing to forget but"):
        await operate.forget(world.app, "account", documents=False, yes=True)
    assert await operate.forget(world.app, "account", documents=True, yes=True) == 0
    assert "1 documents removed" in capsys.readouterr().out
    assert await world.inline.get(1) is None
    with pytest.raises(SchemaError, match="run: readside init"):
        await world.write(Opened(1, "Ada"))
    await (await world.app.runtime()).install()
    await world.write(Opened(1, "Ada"))
    assert await world.inline.get(1) == Account(1, "Ada")


async def waits_for(task: asyncio.Task[Any], connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether somebody has to wait for a connection's transaction before a task is done."""
    blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid)))"
    pid = connection.info.backend_pid
    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        while not task.done():
            if other.execute(blocked, [pid]).fetchone() == (True,):
                return True
            await asyncio.sleep(0.01)
    return False


async def test_who_forgets_waits_for_open_commands(world: World) -> None:
    app = world.app
    async with await psycopg.AsyncConnection.connect(app.settings.write_store) as connection:
        await app.record(connection, Opened(1, "Ada"))
        forgetting = asyncio.create_task(operate.forget(app, "account", documents=True, yes=True))
        assert await waits_for(forgetting, connection)
        await connection.commit()
    assert await forgetting == 0
    assert await world.ask(f"SELECT * FROM {app.name}.account") == []
    known = "SELECT FROM readside_store.documents JOIN readside_store.projections ON id = documents.projection"
    where = f" WHERE schema = '{app.name}' AND relation = 'account'"
    assert await world.ask(known + where) == []
    with pytest.raises(SchemaError, match="run: readside init"):
        await world.write(Opened(1, "Ada"))


def moved(make_app: Any, servers: Any, table: str, **options: Any) -> World:
    """The next version of the app, whose inline projection has another table."""
    world = World(make_app(servers.broker, read_store="postgresql:"))
    del world.app.projections["account"]
    table = readside.Table(name=table, key="id")
    world.inline = world.app.projection("account", Account, table=table, **options)
    world._declare(world.inline)
    return world


@pytest.mark.parametrize("schema", ["", "_reading"])
async def test_another_table_does_not_begin_empty_unasked(
    world: World, make_app: Any, servers: Any, schema: str
) -> None:
    name, there = world.app.name, f"{world.app.name}{schema}"
    await world.write(Opened(1, "Ada"))
    after = moved(make_app, servers, f"{there}.accounts", mode="inline")
    with pytest.raises(readside.RefusedError, match="is inline in table") as caught:
        await (await after.app.runtime()).install()
    assert await world.inline.get(1) == Account(1, "Ada")
    await world.write(Paid(1, 1))
    statements = caught.value.mend.partition(": ")[2].partition(" or first")[0]
    with psycopg.connect(world.app.settings.write_store) as connection:
        if schema:
            connection.execute(f"CREATE SCHEMA {there}".encode())
        connection.execute(statements.encode())
    await (await after.app.runtime()).install()
    with pytest.raises(SchemaError, match="has no table yet"):
        await world.write(Paid(1, 1000))
    await after.write(Paid(1, 2))
    assert await after.inline.get(1) == Account(1, "Ada", 3)
    assert await world.ask(f"SELECT balance FROM {there}.accounts") == [(3,)]
    back = moved(make_app, servers, f"{name}.account", mode="async")
    with pytest.raises(readside.RefusedError, match="is inline in table"):
        await (await back.app.runtime()).install()
    await back.app.close()
    await after.app.close()


async def test_another_table_begins_empty_after_forget(
    world: World, make_app: Any, servers: Any
) -> None:
    await world.write(Opened(1, "Ada"))
    after = moved(make_app, servers, f"{world.app.name}.accounts", mode="inline")
    assert await operate.forget(after.app, "account", documents=True, yes=True) == 0
    await (await after.app.runtime()).install()
    with pytest.raises(SchemaError, match="has no table yet"):
        await world.write(Opened(1, "Ada"))
    await after.write(Opened(2, "Grace"))
    assert await after.inline.get_many([1, 2]) == [None, Account(2, "Grace")]
    await after.app.close()


async def test_init_without_news_waits_for_no_command(world: World) -> None:
    async with await psycopg.AsyncConnection.connect(world.app.settings.write_store) as connection:
        await world.app.record(connection, Opened(1, "Ada"))
        runtime = await world.app.runtime()
        installing = asyncio.create_task(runtime.install())
        waits = await waits_for(installing, connection)
        await connection.commit()
    await installing
    assert not waits
    assert await world.inline.get(1) == Account(1, "Ada")


async def test_without_init_the_command_is_told_so(make_app: Any, servers: Any) -> None:
    app = make_app(servers.broker)
    await (await app.runtime()).install()
    World(app)
    with pytest.raises(SchemaError, match="inline projection account has no table yet"):
        async with app.transaction() as tx:
            tx.record(Opened(1, "x"))
    await app.close()


async def test_with_an_embedded_write_store_nobody_has_to_run_init(
    tmp_path: Path, unique: str
) -> None:
    async def name(app: readside.App, *, inline: bool) -> None:
        if inline:
            World(app)
        async with app, app.transaction() as tx:
            tx.record(Opened(1, "Ada"))

    where = {"broker": "direct:", "read_store": "postgresql:", "directory": str(tmp_path)}
    await name(
        readside.App(unique, **where), inline=False
    )  # installed before there was an inline one
    app = readside.App(unique, **where)
    await name(app, inline=True)
    async with app:
        assert await app.projections["account"].get(1) == Account(1, "Ada")


async def test_what_followed_the_log_does_not_become_inline_unasked(
    make_app: Any, servers: Any, run: Any
) -> None:
    app = make_app(servers.broker)
    app.projection("seen", Seen)
    async with run(app):
        pass
    del app.projections["seen"]
    app.projection("seen", Seen, mode="inline")
    with pytest.raises(readside.RefusedError, match="was asynchronous"):
        await (await app.runtime()).install()
    await app.close()


def test_no_other_mode(make_app: Any, servers: Any) -> None:
    with pytest.raises(readside.DeclarationError, match="use one of: async, wait, inline"):
        make_app(servers.broker).projection("x", Seen, mode="sync")
