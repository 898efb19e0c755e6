"""Histories that popular ways of polling get wrong, on a real server."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from itertools import pairwise
from urllib.parse import quote

import psycopg
import pytest

from readside.adapters.postgres.installation import install
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.partitions import tend_partitions
from readside.adapters.postgres.polling import PollingSource
from readside.adapters.postgres.session import Session
from readside.core.errors import SlotBusyError, SlotLostError
from readside.core.position import parse_lsn
from readside.core.ticking import QUIET, Snapshot
from readside.testing.conformance.source import EPOCH, settled_past, take

RECORD = "SELECT readside.record(%s, 'thing.done', %s, %s::json)"


class World:
    """One app, its poller, and whoever writes."""

    def __init__(self, dsn, app):
        self.dsn, self.app = dsn, app
        self.clients = []

    async def client(self):
        made = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        self.clients.append(made)
        return made

    async def ask(self, statement, *values):
        given = values or ([self.app] if "%s" in statement else None)
        return (await (await self.clients[0].execute(statement, given)).fetchone())[0]

    async def record(self, client, key, number):
        await client.execute(RECORD, [self.app, key, json.dumps(number)])

    async def begin(self):
        client = await self.client()
        await client.execute("BEGIN")
        return client

    def source(self, **options):
        return PollingSource(options.pop("dsn", self.dsn), self.app, EPOCH, **options)

    async def start(self, source):
        await source.start(await self.ask("SELECT origin_lsn FROM readside.capture WHERE app = %s"))
        return source


def numbers(events):
    return [json.loads(event.payload) for event in events]


@pytest.fixture
async def world(servers, make_app):
    app = make_app(capture="polling")
    await (await app.runtime()).install()
    world = World(servers.write_store, app.name)
    await world.client()
    yield world
    for client in world.clients:
        await client.close()
    await app.close()


@pytest.fixture
async def source(world):
    source = await world.start(world.source())
    yield source
    await source.close()


async def test_a_lower_sequence_that_is_committed_later_is_not_skipped(world, source):
    early, late = await world.begin(), await world.begin()
    await world.record(early, "a", 1)
    await world.record(late, "b", 2)
    await late.execute("COMMIT")
    first = (await take(source, 1)).events
    assert numbers(first) == [2]
    await early.execute("COMMIT")
    second = (await take(source, 1)).events
    assert numbers(second) == [1]
    assert first[0].position < second[0].position


@pytest.mark.parametrize("together", [True, False])
async def test_the_order_of_transaction_ids_reverses_no_key(world, source, together):
    """The older transaction waits for the row, and writes the second version."""
    older, younger = await world.begin(), await world.begin()
    await older.execute("SELECT pg_current_xact_id()")
    await world.record(younger, "k", 1)
    found = []
    await younger.execute("COMMIT")
    if not together:
        found += (await take(source, 1)).events
    await world.record(older, "k", 2)
    await older.execute("COMMIT")
    found += (await take(source, 2 - len(found))).events
    assert numbers(found) == [1, 2]
    xids = await world.ask(
        "SELECT array_agg(xid::text::bigint ORDER BY seq) FROM readside.outbox WHERE app = %s"
    )
    assert xids[0] > xids[1]
    assert found[0].position < found[1].position


async def test_rollbacks_and_savepoints_leave_no_hole_and_no_phantom(world, source):
    client = await world.begin()
    await world.record(client, "k", 1)
    await client.execute("SAVEPOINT s")
    await world.record(client, "k", 2)
    await client.execute("ROLLBACK TO s")
    await world.record(client, "k", 3)
    other = await world.begin()
    await world.record(other, "k", 4)
    assert (await source.read(0.05)).events == []
    await other.execute("ROLLBACK")
    await client.execute("COMMIT")
    assert numbers((await take(source, 2)).events) == [1, 3]


async def test_a_long_transaction_holds_up_nobody(world, source):
    """It has written first, stays open beside a thousand short ones, and is not lost."""
    long = await world.begin()
    await world.record(long, "long", -1)

    async def write(first):
        client = await world.client()
        for number in range(first, first + 250):
            await world.record(client, f"k{first}", number)

    writing = [asyncio.create_task(write(first)) for first in range(0, 1000, 250)]
    found = (await take(source, 1000)).events
    await asyncio.gather(*writing)
    assert sorted(numbers(found)) == list(range(1000))
    for first in range(0, 1000, 250):
        own = [
            n for n, event in zip(numbers(found), found, strict=True) if event.key == f"k{first}"
        ]
        assert own == sorted(own)
    await world.record(long, "long", -2)
    await long.execute("COMMIT")
    found += (await take(source, 2)).events
    assert numbers(found[1000:]) == [-1, -2]
    assert all(left.position < right.position for left, right in pairwise(found))


async def test_what_is_not_on_disk_is_not_told(world):
    """Neither writers nor the poller wait for the disk by themselves."""
    lazy = quote("-c synchronous_commit=off")
    source = await world.start(world.source(dsn=f"{world.dsn}?options={lazy}"))
    client = await world.client()
    await client.execute("SET synchronous_commit = off")
    unflushed = 0
    for number in range(20):
        await world.record(client, "k", number)
        end = parse_lsn(await world.ask("SELECT pg_current_wal_insert_lsn()::text"))
        unflushed += end > parse_lsn(await world.ask("SELECT pg_current_wal_flush_lsn()::text"))
        assert numbers((await take(source, 1)).events) == [number]
        assert parse_lsn(await world.ask("SELECT pg_current_wal_flush_lsn()::text")) >= end
    assert unflushed
    await source.close()


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
    async with asyncio.timeout(60):
        while not await world.ask(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'readside poller'"
            " AND %s = ANY(pg_blocking_pids(pid)))",
            locking.info.backend_pid,
        ):
            await asyncio.sleep(0.01)
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


async def test_it_begins_at_a_tick_or_not_at_all(world, source):
    """In between, one tick has seen what is still to come, and the other's positions are too low."""
    places = []
    for number in range(3):
        await world.record(world.clients[0], "k", number)
        chunk = await take(source, 1)
        places.append(chunk.settled)
    await source.close()
    for place in (places[0] + 1, places[2] + 10**6):
        with pytest.raises(SlotLostError, match="no tick at"):
            await world.source().start(place)
    for place, rest in zip(places, ([1, 2], [2], []), strict=True):
        again = world.source()
        await again.start(place)
        assert numbers((await take(again, len(rest))).events) == rest
        await again.close()


async def test_where_more_was_settled_it_goes_on_there(world, source):
    for number in range(3):
        await world.record(world.clients[0], "k", number)
        chunk = await take(source, 1)
    await source.settle(chunk.settled)
    await world.record(world.clients[0], "k", 3)
    await source.close()
    again = await world.start(world.source())
    assert numbers((await take(again, 1)).events) == [3]
    await again.close()


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
    async with asyncio.timeout(60):
        while not await world.ask(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'readside poller'"
            " AND %s = ANY(pg_blocking_pids(pid)))",
            locking.info.backend_pid,
        ):
            await asyncio.sleep(0.01)
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


async def test_a_poller_whose_connections_die_in_mid_batch_goes_on(world):
    async with world.clients[0].transaction():
        await world.clients[0].execute(
            "SELECT readside.record(%s, 'thing.done', 'k', to_json(n)) FROM generate_series(1, 9000) n",
            [world.app],
        )
    source = await world.start(world.source())
    found = (await take(source, 1)).events
    await world.clients[0].execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'readside poller'"
        " AND query LIKE 'FETCH%'"
    )
    with pytest.raises(Exception, match=r"terminating connection|closed"):
        await source.read(0)
    found += (await take(source, 9000 - len(found))).events
    assert numbers(found) == list(range(1, 9001))
    assert [event.position.ordinal for event in found] == list(range(1, 9001))
    await source.close()


async def test_events_with_one_number_have_one_order(world):
    """Nobody should write a number; but if somebody did, a re-send is still the same."""
    source = await world.start(world.source())
    await world.clients[0].execute(
        "INSERT INTO readside.outbox (app, aggregatetype, aggregateid, type, payload, seq)"
        " SELECT %s, 'thing', 'k', 'thing.done', to_json(n), 1 FROM generate_series(1, 200) n",
        [world.app],
    )
    found = (await take(source, 200)).events
    assert [event.id for event in found] == sorted(event.id for event in found)
    await source.close()


async def test_the_same_batches_come_again_whatever_was_written_and_dropped_since(world, source):
    found = []
    for number in range(20):
        await world.record(world.clients[0], f"k{number % 3}", number)
        found += (await take(source, 1)).events
    await source.close()
    await world.clients[0].execute("VACUUM readside.outbox")
    for number in range(20, 25):
        await world.record(world.clients[0], "k", number)
    again = await world.start(world.source())
    assert (await take(again, 25)).events[:20] == found
    await again.close()


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


async def test_rows_of_a_dump_from_another_cluster_are_no_news_ever(world, source):
    """Their transaction ids may lie in the future, or be those of transactions that are running."""
    client = world.clients[0]
    await source.close()
    running = await world.begin()
    await running.execute("SELECT pg_current_xact_id()")
    await client.execute(
        "INSERT INTO readside.outbox (app, aggregatetype, aggregateid, type, payload, xid)"
        " SELECT %s, 'thing', 'k', 'thing.done', '666',"
        " (pg_current_xact_id()::text::bigint + n)::text::xid8 FROM generate_series(-5, 50) n",
        [world.app],
    )
    await client.execute(
        "UPDATE readside.capture SET system_identifier = 'other' WHERE app = %s", [world.app]
    )
    session = Session(world.dsn, "test", plain=True)
    capture = await PostgresLedger(session, world.app).capture(world.app)
    await session.close()
    assert not capture.complete
    await running.execute("COMMIT")
    found = world.source()
    await found.start(capture.bookmark.lsn)
    for number in range(60):
        await world.record(client, "k", number)
    assert numbers((await take(found, 60)).events) == list(range(60))
    await found.close()


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
