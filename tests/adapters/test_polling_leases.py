"""Ticks, and who may make them: pollers that were frozen, are slow, or are two."""

from __future__ import annotations

import asyncio
import datetime as dt
from urllib.parse import quote

import psycopg
import pytest
from tests.adapters import pollers
from tests.adapters.pollers import numbers

from readside.adapters.postgres.partitions import tend_partitions
from readside.core.errors import SlotBusyError, SlotLostError
from readside.core.position import parse_lsn
from readside.core.ticking import Snapshot
from readside.testing.conformance.source import settled_past, take

world, source = pollers.world, pollers.source


async def expire(world):
    await world.clients[0].execute(
        "UPDATE readside.pollers SET expires_at = '-infinity' WHERE app = %s", [world.app]
    )


async def test_a_poller_that_was_frozen_makes_no_more_ticks(world, source):
    await world.record(world.clients[0], "k", 1)
    first = (await take(source, 1)).events
    await expire(world)
    other = await world.start(world.source())
    await world.record(world.clients[0], "k", 2)
    with pytest.raises(SlotBusyError):
        await take(source, 1)
    with pytest.raises(SlotBusyError):
        await source.settle(10**9)
    found = (await take(other, 2)).events
    assert numbers(found) == [1, 2]
    assert found[:1] == first
    await other.close()


async def test_a_clock_that_steps_back_strands_no_outbox(world, source):
    """The poller is dead, and its lease ends in an hour, by a clock that was ahead."""
    await world.clients[0].execute(
        "UPDATE readside.pollers SET expires_at = expires_at + interval '1 hour' WHERE app = %s",
        [world.app],
    )
    other = await world.start(world.source())
    await world.record(world.clients[0], "k", 1)
    assert numbers((await take(other, 1)).events) == [1]
    with pytest.raises(SlotBusyError):
        await source.settle(10**9)
    await other.close()


async def make_tick(world, client):
    """As the poller does; return the tick's place."""
    cursor = await client.execute(
        "SELECT * FROM readside.tick(%s, %s, %s, true)",
        [
            world.app,
            await world.ask("SELECT max(lsn) FROM readside.ticks WHERE app = %s"),
            await world.ask("SELECT token FROM readside.pollers WHERE app = %s"),
        ],
    )
    return await cursor.fetchone()


async def waits_for_a_lock(world, pid):
    async with asyncio.timeout(60):
        while not await world.ask("SELECT cardinality(pg_blocking_pids(%s)) > 0", pid):
            await asyncio.sleep(0.01)


async def test_two_looks_of_one_poller_make_one_tick(world, source):
    """An answer got lost, and the poller asks again while the server still is at the first question."""
    first, second = await world.begin(), await world.client()
    await world.record(world.clients[0], "k", 1)
    tick = await make_tick(world, first)
    again = asyncio.create_task(make_tick(world, second))
    await waits_for_a_lock(world, second.info.backend_pid)
    await world.record(world.clients[0], "k", 2)
    await first.execute("COMMIT")
    assert await again == tick
    assert numbers((await take(source, 2)).events) == [1, 2]


ISOLATIONS = ["read committed", "repeatable read", "serializable"]


@pytest.mark.parametrize("level", ISOLATIONS)
async def test_whatever_level_a_role_has_its_ticks_see_what_they_say(world, level):
    """A snapshot that is older than its place in the log: a token would be told too early."""
    setting = quote("-c default_transaction_isolation=" + level.replace(" ", "\\ "))
    source = await world.start(world.source(dsn=f"{world.dsn}?options={setting}"))
    writer, locking = await world.client(), await world.begin()
    await world.record(writer, "k", 0)
    assert numbers((await take(source, 1)).events) == [0]
    # The look begins, and has to wait in the middle of it.
    await locking.execute(
        "SELECT FROM readside.pollers WHERE app = %s FOR NO KEY UPDATE", [world.app]
    )
    await world.record(writer, "k", 1)
    reading = asyncio.create_task(take(source, 2))
    await world.holds_up_the_poller(locking)
    await world.record(writer, "k", 2)
    token = parse_lsn(await world.ask("SELECT pg_current_wal_flush_lsn()::text"))
    await locking.execute("COMMIT")
    chunk = await reading
    assert numbers(chunk.events) == [1, 2]
    assert all(event.position.lsn < token for event in chunk.events)
    snapshots = await world.ask(
        "SELECT array_agg(snapshot::text ORDER BY lsn) FROM readside.ticks WHERE app = %s AND lsn >= %s",
        world.app,
        token - 1,
    )
    assert snapshots
    last = await world.ask("SELECT max(xid::text::bigint) FROM readside.outbox WHERE app = %s")
    assert all(Snapshot.parse(text).sees(last) for text in snapshots)
    await source.close()


async def test_a_tick_is_refused_where_its_snapshot_would_be_too_old(world, source):
    client = await world.client()
    await client.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(psycopg.Error, match="read committed") as caught:
        await make_tick(world, client)
    assert caught.value.sqlstate == "RS003"


async def test_a_batch_may_take_longer_than_a_silent_server_may(world):
    """Sorting millions of rows is no silence; here a lock makes it last."""
    source = await world.start(world.source(patience=5.0, ttl=2.0))
    client = world.clients[0]
    await client.execute(
        "SELECT readside.record(%s, 'thing.done', 'k', to_json(n)) FROM generate_series(1, 9000) n",
        [world.app],
    )
    await make_tick(world, client)
    locking = await world.begin()
    await locking.execute(f"LOCK TABLE readside.outbox_{world.app} IN ACCESS EXCLUSIVE MODE")
    reading = asyncio.create_task(take(source, 9000))
    waited = (
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8"
        " FROM pg_stat_activity WHERE application_name = 'readside poller'"
        " AND %s = ANY(pg_blocking_pids(pid))"
    )
    async with asyncio.timeout(60):
        while await world.ask(waited, locking.info.backend_pid) < 6.5 and not reading.done():
            await asyncio.sleep(0.05)
    # It is at it, and so nobody else gets the lease.
    other = world.source()
    with pytest.raises(SlotBusyError):
        await world.start(other)
    await other.close()
    await locking.execute("COMMIT")
    assert numbers((await reading).events) == list(range(1, 9001))
    await source.close()


async def test_a_poller_that_reads_for_long_hears_that_another_has_the_lease(world):
    source = await world.start(world.source(ttl=0.6))
    await world.record(world.clients[0], "k", 1)
    await make_tick(world, world.clients[0])
    locking = await world.begin()
    await locking.execute(f"LOCK TABLE readside.outbox_{world.app} IN ACCESS EXCLUSIVE MODE")
    reading = asyncio.create_task(take(source, 1))
    await world.holds_up_the_poller(locking)
    await world.clients[0].execute(
        "UPDATE readside.pollers SET token = token + 1 WHERE app = %s", [world.app]
    )
    with pytest.raises(SlotBusyError):
        await reading
    await locking.execute("COMMIT")
    await source.close()


async def test_one_that_wakes_up_when_the_rows_are_gone_does_not_say_that_there_were_none(world):
    """Everybody has applied them; but what it would tell of the rest is a lie."""
    client = world.clients[0]
    late = await world.start(world.source())
    await client.execute(
        "INSERT INTO readside.outbox (app, aggregatetype, aggregateid, type, payload, recorded_at)"
        " SELECT %s, 'thing', 'k', 'thing.done', to_json(n), now() - interval '1 day'"
        " FROM generate_series(1, 9000) n",
        [world.app],
    )
    await late.read(5)
    await client.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE application_name = 'readside poller'"
    )
    with pytest.raises(Exception, match=r"terminating connection|closed"):
        await late.read(0)
    await expire(world)
    other = await world.start(world.source())
    settled = (await take(other, 9000)).settled
    await other.settle(await settled_past(other, settled))
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as own:
        done = []
        assert await tend_partitions(own, world.app, dt.timedelta(days=0), done)
        assert any("dropped" in line for line in done)
    with pytest.raises(SlotLostError, match="is gone"):
        await late.read(0)
    await late.close()
    await other.close()


async def test_one_that_wakes_up_with_a_batch_in_its_hands_tells_only_what_the_other_tells(world):
    """It had made the tick, and lost the lease before it read the rows."""
    late = await world.start(world.source())
    for number in range(50):
        await world.record(world.clients[0], f"k{number % 3}", number)
    lsn, snapshot, _ = await make_tick(world, world.clients[0])
    assert Snapshot.parse(snapshot).xmax > 0
    await expire(world)
    other = await world.start(world.source())
    mine = (await take(late, 50)).events
    assert mine == (await take(other, 50)).events
    assert all(event.position.lsn < lsn for event in mine)
    await late.close()
    await other.close()
