"""What a transaction records, or does not: what fails, is refused, or breaks off."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from tests.acceptance import things
from tests.acceptance.things import Created, Thing, World

import readside

world = things.world


async def test_a_rollback_leaves_nothing(world: World, run: Any) -> None:
    async with run(world.app):
        with pytest.raises(ZeroDivisionError):
            async with world.app.transaction() as tx:
                tx.record(Created("1", "nobody"))
                _ = 1 / 0
        with pytest.raises(RuntimeError):
            _ = tx.token
        token = await world.write(Created("2", "somebody"))
        assert await world.things.get("2", after=token) == Thing("2", "somebody")
        assert await world.things.get("1") is None


async def test_a_failed_commit_publishes_nothing(world: World, run: Any, unique: str) -> None:
    async with world.app.transaction() as tx:
        await tx.execute(f"CREATE TABLE {unique} (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    async with run(world.app):
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with world.app.transaction() as tx:
                await tx.execute(f"INSERT INTO {unique} VALUES (1), (1)")
                tx.record(Created("1", "a lie"))
        token = await world.write(Created("2", "the truth"))
        assert await world.things.get("2", after=token) == Thing("2", "the truth")
        assert await world.things.get("1") is None


async def test_a_failed_commit_does_no_harm_to_later_ones(
    make_app: Any, servers: Any, unique: str
) -> None:
    app = make_app(servers.broker, pool_size=1)
    await (await app.runtime()).install()
    async with app.transaction() as tx:
        await tx.execute(f"CREATE TABLE {unique} (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    for number in range(
        12
    ):  # psycopg prepares what it sees for the fifth time, whatever becomes of it
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with app.transaction() as tx:
                await tx.execute(f"INSERT INTO {unique} VALUES (1), (1)")
                tx.record(Created("1", "a lie"))
        async with app.transaction() as tx:
            tx.record(*(Created(str(n), "the truth") for n in range(1 + number % 3)))
    await app.close()


async def test_a_token_is_not_below_a_commit_that_is_not_flushed_yet(world: World) -> None:
    for number in range(20):
        async with world.app.transaction() as tx:
            await tx.execute("SET LOCAL synchronous_commit = off")
            await tx.execute("SELECT pg_logical_emit_message(false, 'readside test', 'unflushed')")
            before = await tx.fetchone("SELECT pg_current_wal_insert_lsn() - '0/0' AS lsn")
            tx.record(Created(str(number), "Ada"))
        assert tx.token.position.lsn > before.lsn


async def test_a_swallowed_error_is_not_taken_for_a_commit(world: World) -> None:
    with pytest.raises((readside.ReadsideError, psycopg.Error)):
        async with world.app.transaction() as tx:
            with pytest.raises(psycopg.errors.UndefinedTable):
                await tx.execute("SELECT * FROM there_is_no_such_table")
    async with world.app.transaction() as tx:
        assert (await tx.fetchone("SELECT 1 AS one")).one == 1


async def test_what_cannot_be_recorded_is_refused_at_once(world: World) -> None:
    async with world.app.transaction() as tx:
        with pytest.raises(readside.PayloadError, match="bytes of JSON"):
            tx.record(Created("1", "x" * 1_000_001))
        with pytest.raises(readside.PayloadError, match="key"):
            tx.record(Created("", "x"))
        with pytest.raises(readside.PayloadError, match="key"):
            tx.record(Created("a\0b", "x"))
        with pytest.raises(readside.PayloadError):
            tx.record(Created("1", "\ud800"))
    assert tx.token.partitions == ()


async def test_record_on_a_connection_of_your_own(world: World, run: Any, servers: Any) -> None:
    async with run(world.app):
        async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
            await world.app.record(connection, Created("async", "a"), Created("async2", "a"))
        with psycopg.connect(servers.write_store) as connection:
            world.app.record(
                connection, Created("sync", "s"), headers={"traceparent": "00-ab-cd-01"}
            )
        token = await world.write(Created("last", "l"))
        everything = readside.Token(token.position, tuple(range(8)))
        found = await world.things.get_many(["async", "async2", "sync"], after=everything)
    assert [thing and thing.name for thing in found] == ["a", "a", "s"]


async def test_a_cancellation_that_comes_with_the_connection_is_kept(make_app: Any) -> None:
    app = make_app(pool_size=1)
    await (await app.runtime()).install()
    reached = False

    async def write() -> None:
        nonlocal reached
        async with app.transaction():
            reached = True

    await write()
    reached = False
    pool = await (await app.runtime()).pool()
    connection = await pool.getconn()
    writing = asyncio.create_task(write())
    while not pool.get_stats().get("requests_waiting"):
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    returning = asyncio.create_task(pool.putconn(connection))
    returning.add_done_callback(lambda _: writing.cancel())
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not reached
    await write()  # the only connection is back
    assert reached
    await app.close()
