"""What is recorded comes out of the log, whatever the outbox: the same promises of table and message."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest
from psycopg import pq

import readside
from readside.adapters.postgres.source import SlotSource
from readside.core.record import Captured
from readside.testing.conformance.source import EPOCH, take

LARGEST = 100_000


class Added(readside.Event, key="id", type="entry.added"):
    id: str
    number: int
    text: str = ""


class Lines:
    """An app, and the source of what it records."""

    def __init__(self, app: readside.App, source: SlotSource) -> None:
        self.app = app
        self.source = source
        self.number = 0

    async def told(self) -> list[Captured]:
        """Everything recorded so far, by an event that marks the end."""
        self.number += 1
        async with self.app.transaction() as tx:
            tx.record(Added("end", self.number))
        found: list[Captured] = []
        while not found or found[-1].key != "end":
            found += (await take(self.source, 1)).events
        return found[:-1]


def numbers(events: list[Captured]) -> list[int]:
    return [int(json.loads(event.payload)["number"]) for event in events]


@pytest.fixture(params=["table", "message"])
async def lines(request: pytest.FixtureRequest, make_app: Any, servers: Any) -> Any:
    app = make_app(outbox=request.param, max_payload=LARGEST)
    runtime = await app.runtime()
    await runtime.install()
    source = SlotSource(servers.write_store, app.name, EPOCH)
    await source.start((await runtime.capture()).origin.lsn)
    yield Lines(app, source)
    await source.close()
    await app.close()


async def test_what_is_recorded_comes_out_in_its_order(lines: Lines) -> None:
    async with lines.app.transaction() as tx:
        tx.record(Added("a", 1), headers={"traceparent": "00-ab-cd-01"})
        tx.record(Added("b", 2), Added("a", 3))
    found = await lines.told()
    assert [(event.key, event.headers) for event in found] == [
        ("a", b'{"traceparent":"00-ab-cd-01"}'),
        ("b", b""),
        ("a", b""),
    ]
    assert numbers(found) == [1, 2, 3]
    assert [event.position.ordinal for event in found] == [1, 2, 3]
    assert tx.token.position > found[0].position
    assert tx.token.partitions
    assert all(event.recorded_at for event in found)
    assert len({event.id for event in found}) == 3


async def test_10000_events_of_one_transaction_keep_their_order(lines: Lines) -> None:
    async with lines.app.transaction() as tx:
        tx.record(*(Added(str(n % 100), n) for n in range(10_000)))
    assert numbers(await lines.told()) == list(range(10_000))


async def test_10000_events_on_a_connection_of_your_own_keep_their_order(
    lines: Lines, servers: Any
) -> None:
    with psycopg.connect(servers.write_store) as connection:
        lines.app.record(connection, *(Added(str(n % 100), n) for n in range(10_000)))
    assert numbers(await lines.told()) == list(range(10_000))


async def test_many_large_payloads_go_in_several_statements(lines: Lines) -> None:
    text = "ключ" * 11_000
    async with lines.app.transaction() as tx:
        tx.record(*(Added("k", n, text) for n in range(300)))
    found = await lines.told()
    assert numbers(found) == list(range(300))
    assert all(f'"{text}"'.encode() in event.payload for event in found)


async def test_a_payload_that_is_too_large_is_refused_at_once(lines: Lines) -> None:
    with pytest.raises(readside.PayloadError, match="bytes of JSON"):
        async with lines.app.transaction() as tx:
            tx.record(Added("k", 1, "x" * LARGEST))
    with pytest.raises(readside.PayloadError, match="headers have"):
        async with lines.app.transaction() as tx:
            tx.record(Added("k", 1), headers={"x": "x" * 5000})
    assert await lines.told() == []


async def test_a_rollback_leaves_nothing(lines: Lines, servers: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with lines.app.transaction() as tx:
            tx.record(Added("a", 1))
            await tx.flush()
            tx.record(Added("a", 2))
            _ = 1 / 0
    async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
        await lines.app.record(connection, Added("a", 3))
        await connection.rollback()
    with psycopg.connect(servers.write_store) as connection:
        lines.app.record(connection, Added("a", 4))
        connection.rollback()
    assert await lines.told() == []


async def test_a_savepoint_takes_back_what_it_recorded(lines: Lines) -> None:
    async with lines.app.transaction() as tx:
        tx.record(Added("a", 1))
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                tx.record(Added("b", 2))
                _ = 1 / 0
        async with tx.savepoint():
            tx.record(Added("c", 3))
    assert numbers(await lines.told()) == [1, 3]


async def test_a_savepoint_of_psycopg_takes_back_what_was_written(
    lines: Lines, servers: Any
) -> None:
    async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
        await lines.app.record(connection, Added("a", 1))
        async with connection.transaction(force_rollback=True):
            await lines.app.record(connection, Added("a", 2))
            async with connection.transaction():
                await lines.app.record(connection, Added("a", 3))
        async with connection.transaction():
            await lines.app.record(connection, Added("a", 4))
    with psycopg.connect(servers.write_store) as connection:
        with connection.transaction(force_rollback=True):
            lines.app.record(connection, Added("a", 5))
        lines.app.record(connection, Added("a", 6), Added("a", 7))
    assert numbers(await lines.told()) == [1, 4, 6, 7]


async def test_flush_keeps_the_order(lines: Lines) -> None:
    async with lines.app.transaction() as tx:
        for number in range(0, 9, 3):
            tx.record(Added("a", number), Added("b", number + 1))
            await tx.flush()
            tx.record(Added("a", number + 2))
    found = await lines.told()
    assert numbers(found) == list(range(9))
    assert len({event.position.lsn for event in found}) == 1


async def test_record_in_a_pipeline(lines: Lines, servers: Any) -> None:
    async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
        async with connection.pipeline():
            await lines.app.record(connection, Added("a", 1))
            await lines.app.record(connection, Added("a", 2), Added("a", 3))
        assert connection.pgconn.transaction_status == pq.TransactionStatus.INTRANS
        await connection.commit()
    assert numbers(await lines.told()) == [1, 2, 3]


async def test_record_in_a_serializable_transaction(lines: Lines, servers: Any) -> None:
    async def one(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
            await connection.execute("SELECT 1")
            await lines.app.record(connection, Added("a", number))

    await asyncio.gather(*(one(number) for number in range(8)))
    assert sorted(numbers(await lines.told())) == list(range(8))


@pytest.mark.parametrize("commit", ["on", "off"])
@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_token_is_behind_its_commit(lines: Lines, commit: str, count: int) -> None:
    for _ in range(10):
        async with lines.app.transaction() as tx:
            await tx.execute(f"SET LOCAL synchronous_commit = {commit}")
            before = await tx.fetchone("SELECT pg_current_wal_insert_lsn() - '0/0' AS lsn")
            tx.record(*(Added("a", number) for number in range(count)))
        if count:
            assert tx.token.position.lsn > before.lsn
        found = await lines.told()
        assert len(found) == count
        assert all(event.position < tx.token.position for event in found)


async def test_what_failed_inside_the_block_is_not_taken_for_a_commit(lines: Lines) -> None:
    for events in ([], [Added("a", 1)], [Added("a", 1), Added("a", 2)]):
        with pytest.raises((readside.ReadsideError, psycopg.Error)):
            async with lines.app.transaction() as tx:
                with pytest.raises(psycopg.errors.UndefinedTable):
                    await tx.execute("SELECT * FROM there_is_no_such_table")
                tx.record(*events)
    assert await lines.told() == []
