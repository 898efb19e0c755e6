"""Histories that popular ways of polling get wrong, on a real server."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from urllib.parse import quote

import pytest
from tests.adapters import pollers
from tests.adapters.pollers import numbers

from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.session import Session
from readside.core.errors import SlotLostError
from readside.core.position import parse_lsn
from readside.testing.conformance.source import take

world, source = pollers.world, pollers.source


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
