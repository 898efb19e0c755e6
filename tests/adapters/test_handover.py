"""From one capture to the other: what a change leaves behind, and whom it holds up."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest

from readside.adapters.postgres.capture import LOOK_EVERY, PostgresSource
from readside.adapters.postgres.handover import INSTALLING, MARK, cut, make_index
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import Session
from readside.adapters.postgres.source import SlotSource
from readside.core.errors import UnavailableError
from readside.ports.ending import end
from readside.testing.conformance.source import EPOCH, take

RECORD = "SELECT readside.record(%s, 'thing.done', 'k', %s::json)"


class Shop:
    """One app, whoever writes to it, and whoever asks about it."""

    def __init__(self, dsn, app):
        self.dsn, self.app, self.names = dsn, app, Names(app)
        self.clients = []

    async def client(self):
        made = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        self.clients.append(made)
        return made

    async def ask(self, statement, *values):
        return (await (await self.clients[0].execute(statement, values or None)).fetchone())[0]

    async def note(self, column):
        return await self.ask(f"SELECT {column} FROM readside.capture WHERE app = %s", self.app)

    async def has_slot(self):
        return await self.ask(
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)", self.names.slot
        )

    async def record(self, number, client=None):
        await (client or self.clients[0]).execute(RECORD, [self.app, json.dumps(number)])

    async def writing(self):
        """A transaction that has written to the outbox, and stays open."""
        client = await self.client()
        await client.execute("BEGIN")
        await self.record(-1, client)
        return client

    def change(self, capture):
        return asyncio.create_task(install(self.dsn, self.app, 8, 1_000_000, capture))

    async def waits_for(self, client):
        """Wait until somebody who installs waits for a client."""
        async with asyncio.timeout(60):
            while not await self.ask(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'readside init'"
                " AND %s = ANY(pg_blocking_pids(pid)))",
                client.info.backend_pid,
            ):
                await asyncio.sleep(0.005)

    async def make_slot(self):
        await self.ask(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", self.names.slot
        )


@pytest.fixture
async def shop(servers, make_app, request):
    app = make_app(capture=getattr(request, "param", "replication"))
    await (await app.runtime()).install()
    shop = Shop(servers.write_store, app.name)
    await shop.client()
    yield shop
    for client in shop.clients:
        await client.close()
    await app.close()


def numbers(events):
    return [json.loads(event.payload) for event in events]


async def test_the_index_holds_up_no_writer(shop):
    long, writer = await shop.writing(), await shop.client()
    change = shop.change("polling")
    await shop.waits_for(long)
    async with asyncio.timeout(60):
        for number in range(10):
            await shop.record(number, writer)
        await shop.waits_for(long)
        for number in range(10):
            await shop.record(number, writer)
    assert not change.done()
    await long.execute("COMMIT")
    await change
    assert await shop.note("capture") == "polling"
    assert await shop.ask(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass",
        f"readside.{shop.names.xid_index}",
    )


async def test_what_a_death_left_of_an_index_is_made_anew(shop):
    """Half of it, as if it had died in the middle; a repetition completes it."""
    client = await shop.client()
    await client.execute(
        f"CREATE INDEX {shop.names.xid_index} ON ONLY readside.{shop.names.branch} (xid)"
    )
    await client.execute(
        f"CREATE INDEX {shop.names.branch}__rest_xid ON readside.{shop.names.branch}__rest (xid)"
    )
    done = []
    await make_index(client, shop.names, done)
    assert done == [f"index readside.{shop.names.xid_index}"]
    assert await shop.ask(
        "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid IN"
        " (SELECT relid FROM pg_partition_tree(%s::regclass))",
        f"readside.{shop.names.xid_index}",
    )
    await make_index(client, shop.names, done)
    assert len(done) == 1


@pytest.mark.parametrize("shop", ["polling"], indirect=True)
async def test_a_change_that_gives_up_leaves_no_slot(shop):
    long, other = await shop.writing(), await shop.client()
    change = shop.change("replication")
    waits = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'ShareLock'"
        " AND relation = %s::regclass)"
    )
    async with asyncio.timeout(60):
        while not await shop.ask(waits, f"readside.{shop.names.branch}"):
            # A slot begins only when those who wrote have ended; the table is wanted after that,
            # and there is always somebody who writes.
            await other.execute("BEGIN")
            await shop.record(0, other)
            await long.execute("COMMIT")
            long, other = other, long
            await asyncio.sleep(0.02)
    assert await shop.has_slot()
    await end([change])
    assert not await shop.has_slot()
    assert await shop.note("capture") == "polling"


@pytest.mark.parametrize("shop", ["polling"], indirect=True)
async def test_a_slot_that_was_left_behind_is_dropped_by_the_relay(shop):
    """Not the one of a change under way; and again and again, for somebody may hold it at first."""
    now = 0.0
    source = PostgresSource(shop.dsn, shop.app, EPOCH, clock=lambda: now)
    origin = await shop.note("origin_lsn")
    await source.start(origin)
    await source.settle(origin)
    await shop.make_slot()
    installing = await shop.client()
    await installing.execute("SELECT pg_advisory_lock(%s)", [INSTALLING])
    for _ in range(3):
        now += LOOK_EVERY
        await source.settle(origin)
        assert await shop.has_slot()
    await installing.execute("SELECT pg_advisory_unlock(%s)", [INSTALLING])
    now += LOOK_EVERY
    await source.settle(origin)
    assert not await shop.has_slot()
    assert source.retains(origin) is None
    await source.close()


@pytest.mark.parametrize("shop", ["polling"], indirect=True)
async def test_a_repetition_of_init_drops_it_as_well(shop):
    await shop.make_slot()
    await shop.change("polling")
    assert not await shop.has_slot()


async def test_a_new_epoch_in_the_middle_of_a_change_leaves_no_slot(shop):
    await shop.record(1)
    await shop.change("polling")
    assert await shop.note("confirmed_lsn < cut_lsn")
    await shop.clients[0].execute(
        "UPDATE readside.capture SET system_identifier = 'other' WHERE app = %s", [shop.app]
    )
    session = Session(shop.dsn, "test")
    capture = await PostgresLedger(session, shop.app).capture(shop.app)
    await session.close()
    assert not capture.complete
    source = PostgresSource(shop.dsn, shop.app, capture.epoch)
    await source.start(capture.bookmark.lsn)
    await source.settle(capture.bookmark.lsn)
    assert not await shop.has_slot()
    await source.close()


@pytest.mark.parametrize("shop", ["polling"], indirect=True)
async def test_a_new_epoch_waits_for_a_change_of_capture(shop):
    """Ticks of a new epoch would be none of the slot's."""
    changing = await shop.client()
    await shop.clients[0].execute(
        "UPDATE readside.capture SET system_identifier = 'other' WHERE app = %s", [shop.app]
    )
    epoch = await shop.note("epoch")
    await shop.make_slot()
    session = Session(shop.dsn, "test")
    ledger = PostgresLedger(session, shop.app)
    async with changing.transaction():
        await cut(changing, shop.names, "replication", [])
        beginning = asyncio.create_task(ledger.capture(shop.app))
        async with asyncio.timeout(60):
            while not await shop.ask(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid)))",
                changing.info.backend_pid,
            ):
                await asyncio.sleep(0.005)
    with pytest.raises(UnavailableError, match="changed meanwhile"):
        await beginning
    assert await shop.note("epoch") == epoch
    assert await shop.note("cut_lsn") > 0
    assert not (await ledger.capture(shop.app)).complete
    await session.close()


async def test_a_source_says_from_where_the_log_is_kept(shop):
    origin = await shop.note("origin_lsn")
    source = PostgresSource(shop.dsn, shop.app, EPOCH)
    await source.start(origin)
    assert source.retains(origin) == origin
    await source.close()
    await shop.change("polling")
    place = await shop.note("cut_lsn")
    await source.start(origin)
    assert source.retains(origin) == origin
    assert source.retains(place) is None
    await source.close()


@pytest.mark.parametrize("shop", ["polling"], indirect=True)
async def test_on_the_way_back_the_log_is_kept_from_the_cut_on(shop):
    origin = await shop.note("origin_lsn")
    await shop.change("replication")
    place = await shop.note("cut_lsn")
    source = PostgresSource(shop.dsn, shop.app, EPOCH)
    await source.start(origin)
    assert source.retains(origin) == place > origin
    assert source.retains(place + 1) == place + 1
    await source.close()


async def test_nothing_beyond_a_cut_is_told_before_the_cut_is_sure(shop):
    """It is marked, and not committed yet, while the rest of the database goes on."""
    source = SlotSource(shop.dsn, shop.app, EPOCH)
    await source.start(await shop.note("origin_lsn"))
    await shop.record(1)
    assert numbers((await take(source, 1)).events) == [1]
    cutting, busy = await shop.client(), await shop.client()
    await make_index(cutting, shop.names, [])
    told = []

    async def read():
        while not source.handed_over:
            chunk = await source.read(0.05)
            told.append(chunk.settled)
            assert not chunk.events

    async with cutting.transaction():
        await cut(cutting, shop.names, "polling", [])
        place = await (
            await cutting.execute("SELECT cut_lsn FROM readside.capture WHERE app = %s", [shop.app])
        ).fetchone()
        reading = asyncio.create_task(read())
        async with asyncio.timeout(60):
            while not await shop.ask(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid)))",
                cutting.info.backend_pid,
            ):
                await busy.execute("SELECT pg_logical_emit_message(true, 'elsewhere', 'x')")
        assert not reading.done()
    await reading
    await shop.record(2)
    with pytest.raises(UnavailableError, match="handed over"):
        await source.read(0)
    assert max(told) <= place[0]
    await source.close()


async def test_a_cut_that_was_marked_and_failed_is_none(shop):
    source = SlotSource(shop.dsn, shop.app, EPOCH)
    await source.start(await shop.note("origin_lsn"))
    cutting = await shop.client()
    await make_index(cutting, shop.names, [])
    async with cutting.transaction(force_rollback=True):
        await cut(cutting, shop.names, "polling", [])
    await shop.record(1)
    assert numbers((await take(source, 1)).events) == [1]
    assert not source.handed_over
    await source.close()


@pytest.mark.parametrize("transactional", [True, False])
async def test_nobody_else_can_mark_a_cut(shop, transactional):
    """Any role may write a message; not even one right before a cut is taken for its mark."""
    source = SlotSource(shop.dsn, shop.app, EPOCH)
    await source.start(await shop.note("origin_lsn"))
    forger = await shop.client()
    for content in (shop.app, f"{shop.app} ", f"{shop.app} 0", f"{shop.app} \x01"):
        await forger.execute(
            "SELECT pg_logical_emit_message(%s, %s, %s::text)", [transactional, MARK, content]
        )
    await forger.execute(
        "SELECT pg_logical_emit_message(%s, %s, %s::bytea)",
        [transactional, MARK, shop.app.encode() + b" \xff\0"],
    )
    await shop.record(1)
    assert numbers((await take(source, 1)).events) == [1]
    assert not source.handed_over
    await make_index(forger, shop.names, [])
    for content in (shop.app, f"{shop.app} 0"):
        await forger.execute(
            "SELECT pg_logical_emit_message(%s, %s, %s::text)", [transactional, MARK, content]
        )
    await shop.record(2)
    await cut(forger, shop.names, "polling", [])
    assert numbers((await take(source, 1)).events) == [2]
    async with asyncio.timeout(60):
        while not source.handed_over:
            assert (await source.read(0.05)).events == []
    await source.close()
