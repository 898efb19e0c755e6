"""Messages as the outbox of an app: who may write them, from when, and until when."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.acceptance import histories
from tests.acceptance.histories import Counted, World

import readside
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.messages import end_messages
from readside.adapters.postgres.names import Names
from readside.core.errors import RefusedError, SettingsError
from readside.service import Service

world = histories.world


@pytest.mark.parametrize("first", ["table", "message"])
async def test_a_change_of_the_outbox_loses_and_repeats_nothing(
    make_app: Any, run: Any, broker_url: str, first: str
) -> None:
    """While the relay runs and restarts, with writers of both settings side by side."""
    names = ("table", "message") if first == "table" else ("message", "table")
    worlds = [World(make_app(broker_url, outbox=name, settle_delay=0.2)) for name in names]
    world = worlds[0]
    await (await world.app.runtime()).install()
    count = [0]

    async def more(*some: World, times: int = 30) -> readside.Token:
        for _ in range(times):
            for one in some:
                token = await one.write(Counted("a", count[0]), Counted("a", count[0] + 1))
                count[0] += 2
        return token

    async with run(world.app):
        await more(worlds[0])
        await (await worlds[1].app.runtime()).install()
        await more(*worlds)
    await more(*worlds)
    async with run(worlds[1].app):
        await more(worlds[1])
        await more(*worlds)
        token = await more(worlds[0])
        assert await worlds[1].numbers("a", token) == list(range(count[0]))
    for one in worlds:
        await one.app.close()


async def test_polling_is_refused(make_app: Any) -> None:
    with pytest.raises(SettingsError, match="polling cannot see them"):
        make_app(capture="polling", outbox="message")


async def test_what_is_not_installed_is_refused(make_app: Any, servers: Any) -> None:
    table = make_app()
    await (await table.runtime()).install()
    app = make_app(outbox="message")
    with pytest.raises(SettingsError, match="not installed for outbox=message"):
        async with app.transaction():
            pass
    with pytest.raises(SettingsError, match="not installed for outbox=message"):
        await Service(await app.runtime(), {}).run()
    async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
        with pytest.raises(psycopg.Error, match="not installed for outbox=message"):
            await app.record(connection, Counted("a", 1))
    await (await app.runtime()).install()
    async with app.transaction() as tx:
        tx.record(Counted("a", 1))
    for one in (app, table):
        await one.close()


async def test_a_change_to_polling_ends_the_messages(
    make_app: Any, run: Any, servers: Any, broker_url: str
) -> None:
    """What was written before comes; a late writer is refused."""
    world = World(make_app(broker_url, outbox="message", settle_delay=0.2))
    name, dsn = world.app.name, servers.write_store
    refused = pytest.raises(psycopg.Error, match="not installed for outbox=message")
    async with run(world.app):
        await world.write(Counted("a", 1))
        await world.write(Counted("a", 2))
        await install(dsn, name, 8, 1_000_000, "polling")
        polling = World(make_app(broker_url, capture="polling"))
        token = await polling.write(Counted("a", 3))
        assert await world.numbers("a", token) == [1, 2, 3]
        with refused:
            await world.write(Counted("a", 99))
        await _back(dsn, name)
        token = await world.write(Counted("a", 4))
        assert await world.numbers("a", token) == [1, 2, 3, 4]
    await world.app.close()
    await polling.app.close()


async def test_the_end_waits_for_those_who_have_written(world: World, servers: Any) -> None:
    dsn, names = servers.write_store, Names(world.app.name)
    await world.write(Counted("a", 0))
    async with (
        await psycopg.AsyncConnection.connect(dsn) as begun,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as ending,
    ):
        await world.app.record(begun, Counted("a", 1))
        end = asyncio.create_task(end_messages(ending, names))
        async with asyncio.timeout(60):
            while True:
                try:
                    await world.write(Counted("a", 2))
                except psycopg.Error as error:
                    assert "not installed for outbox=message" in str(error)  # noqa: PT017 - awaited
                    break
        assert not end.done()
        await begun.commit()
        await end


async def test_a_writer_with_an_older_snapshot_does_not_miss_the_end(
    world: World, servers: Any
) -> None:
    dsn, names = servers.write_store, Names(world.app.name)
    async with (
        await psycopg.AsyncConnection.connect(dsn) as older,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as ending,
    ):
        await older.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await older.execute("SELECT 1")
        await end_messages(ending, names)
        with pytest.raises(psycopg.errors.SerializationFailure):
            await world.app.record(older, Counted("a", 99))


async def _back(dsn: str, name: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await install(dsn, name, 8, 1_000_000, outbox="message")
            except RefusedError as error:
                assert "still under way" in str(error)  # noqa: PT017 - it is tried again
                await asyncio.sleep(0.05)
            else:
                return


def granted(role: str) -> list[str]:
    """What docs/operations.md grants to shop_app, without the table: the right to emit comes last."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    found = re.findall(r"^ +(GRANT [^;]* TO shop_app);", page, re.MULTILINE)
    ours = [one for one in found if "SCHEMA readside TO" in one or "readside." in one]
    assert len(ours) == 5
    return [one.replace("shop_app", role) for one in ours if "INSERT" not in one]


async def test_the_rights_that_the_page_names_are_enough_and_needed(
    world: World, make_app: Any, servers: Any
) -> None:
    role = f"{world.app.name}_app"
    dsn = servers.write_store.replace("//readside@", f"//{role}@")
    with psycopg.connect(servers.write_store, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            *most, emit = granted(role)
            for one in most:
                owner.execute(one.encode())
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await world.app.record(connection, Counted("a", 1))
            owner.execute(emit.encode())
            theirs = readside.App(
                world.app.name, write_store=dsn, broker=servers.broker,
                read_store=servers.read_store, outbox="message",
            )  # fmt: skip
            async with theirs.transaction() as tx:
                tx.record(Counted("a", 1))
            assert tx.token.partitions
            await theirs.close()
        finally:
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())
