"""What polling costs, which rows it lets go of, and the rights that it needs."""

from __future__ import annotations

import asyncio
import datetime as dt

import psycopg
import pytest
from tests.adapters import pollers
from tests.adapters.pollers import World, numbers

from readside.adapters.postgres.installation import install
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.partitions import tend_partitions
from readside.adapters.postgres.polling import PollingSource
from readside.adapters.postgres.session import Session
from readside.core.ticking import QUIET
from readside.testing.conformance.source import settled_past, take

world, source = pollers.world, pollers.source


async def test_idle_polling_writes_next_to_nothing(world, source):
    await world.record(world.clients[0], "k", 1)
    await take(source, 1)
    count = "SELECT count(*) FROM readside.ticks WHERE app = %s"
    before, clock = await world.ask(count), asyncio.get_running_loop().time
    began = clock()
    while clock() < began + 2 * QUIET:
        assert (await source.read(QUIET / 4)).events == []
    assert await world.ask(count) - before <= 2 + (clock() - began) / QUIET + 1


async def test_what_was_published_costs_nothing(world, source):
    """Neither looks nor batches touch rows of earlier batches, asked of PostgreSQL's own counters."""
    client = world.clients[0]
    # Few transactions with many rows: statistics then speak for reading all of it.
    for _ in range(10):
        await client.execute(
            "SELECT readside.record(%s, 'thing.done', 'k', to_json(n)) FROM generate_series(1, 5000) n",
            [world.app],
        )
    settled = (await take(source, 50_000)).settled
    await source.settle(await settled_past(source, settled - 1))
    await client.execute("VACUUM ANALYZE readside.outbox")
    long = await world.begin()
    await world.record(long, "long", 0)
    await source.close()
    before = await touched(world)
    source = world.source()
    await source.start(settled)
    for number in range(1, 21):
        assert (await source.read(0.01)).events == []
        await world.record(client, "k", number)
        assert numbers((await take(source, 1)).events) == [number]
    await source.close()
    # A row is looked at when it is asked whether there is one, by the tick, and by the batch.
    assert 20 <= await touched(world) - before <= 500


async def touched(world):
    """Rows of the outbox that were read by anybody so far."""
    for client in world.clients:
        if client.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            await client.execute("SELECT pg_stat_force_next_flush()")
    async with asyncio.timeout(60):  # a connection that ends tells its counters
        while await world.ask(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE application_name = 'readside poller')"
        ):
            await asyncio.sleep(0.01)
    return await world.ask(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint"
        " FROM pg_stat_user_tables WHERE schemaname = 'readside'"
        " AND relname LIKE 'outbox_' || %s || '\\_\\_%%'"
    )


async def test_old_rows_stay_until_they_are_settled(world, source):
    client = world.clients[0]
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    await client.execute(
        "INSERT INTO readside.outbox (app, aggregatetype, aggregateid, type, payload, recorded_at)"
        " VALUES (%s, 'thing', 'k', 'thing.done', '7', %s)",
        [world.app, long_ago],
    )
    leaf = f"outbox_{world.app}__{long_ago:%Y%m%d}"
    there = f"SELECT to_regclass('readside.{leaf}') IS NOT NULL"

    async def tend():
        async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as own:
            assert await tend_partitions(own, world.app, dt.timedelta(days=0), [])

    await tend()
    assert await world.ask(there)
    assert numbers((await take(source, 1)).events) == [7]
    await tend()
    assert await world.ask(there)
    await source.settle(await settled_past(source, (await source.read(0)).settled))
    await tend()
    assert not await world.ask(there)


@pytest.mark.parametrize("capture", ["replication", "polling"])
async def test_writers_do_not_queue_up_behind_a_drop(servers, make_app, capture):
    app = make_app(capture=capture)
    await (await app.runtime()).install()
    world = World(servers.write_store, app.name)
    tending, writer = await world.client(), await world.client()
    long = await world.begin()
    await world.record(long, "k", 1)
    # The first of the partitions is that of yesterday, which is empty.
    done = []
    assert not await tend_partitions(tending, app.name, dt.timedelta(0), done)
    assert not done
    rounds = asyncio.create_task(_tend_until_refused(tending, app.name))
    async with asyncio.timeout(30):
        for number in range(20):
            await world.record(writer, "k", number)
        await rounds
    await long.execute("COMMIT")
    assert await tend_partitions(tending, app.name, dt.timedelta(0), done)
    assert any(line.startswith("dropped readside.") for line in done)
    for client in world.clients:
        await client.close()
    await app.close()


async def _tend_until_refused(client, app):
    for _ in range(3):
        assert not await tend_partitions(client, app, dt.timedelta(0), [])


async def test_a_plain_user_is_enough(world, unique):
    """Neither superuser nor REPLICATION, in a database of its own."""
    admin, role = world.clients[0], f"plain_{unique}"
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' NOSUPERUSER NOREPLICATION")
    await admin.execute(f"CREATE DATABASE {role} OWNER {role}")
    try:
        info = admin.info
        dsn = f"postgresql://{role}:x@{info.host}:{info.port}/{role}"
        await install(dsn, "shop", 4, 1000, "polling")
        session = Session(dsn, "test", plain=True)
        capture = await PostgresLedger(session, "shop").capture("shop")
        assert capture.complete
        source = PollingSource(dsn, "shop", capture.epoch)
        await source.start(capture.bookmark.lsn)
        await session.query("SELECT readside.record('shop', 'thing.done', 'k', '1')")
        chunk = await take(source, 1)
        assert numbers(chunk.events) == [1]
        await source.settle(chunk.settled)
        await source.close()
        await session.close()
    finally:
        await admin.execute(f"DROP DATABASE {role} WITH (FORCE)")
        await admin.execute(f"DROP ROLE {role}")
