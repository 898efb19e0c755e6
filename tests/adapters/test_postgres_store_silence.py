"""A worker that falls silent in the middle of a batch, or is interrupted there, leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

import readside
from readside.adapters.postgres_store.connections import Connections
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.folding import Batch, Write
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.core.table import Table
from readside.ports.store import Outcome

_FIRST = Checkpoint(Position(1, 1, 1), 1, "", 1)
_SECOND = Checkpoint(Position(1, 2, 1), 2, "", 2)
_HOLD = b"SELECT FROM readside_store.checkpoints FOR UPDATE"


class Number(readside.View):
    n: int


@pytest_asyncio.fixture
async def store(servers: Any, unique: str) -> AsyncIterator[PostgresStore]:
    """A store with one document at the first checkpoint."""
    made = PostgresStore(servers.write_store)
    made.declare({unique: Projection(unique, Number, table=Table(name=f"views.{unique}"))})
    await made.prepare(unique)
    await made.open(unique, [unique])
    first = Batch(unique, 0, None, _FIRST, (Write("a", "", "p1", b'{"n":1}'),))
    assert await made.apply(first) is Outcome.APPLIED
    yield made
    await made.reset(unique, None)
    await made.close()


async def _silent(dsn: str, name: str) -> Any:
    return await psycopg.AsyncConnection.connect(dsn, application_name=name)


@pytest.mark.parametrize("in_pipeline", [False, True])
async def test_a_silent_worker_is_ended(
    store: PostgresStore, servers: Any, unique: str, in_pipeline: bool
) -> None:
    silent = await _silent(servers.write_store, "readside store")
    try:
        if in_pipeline:  # as a worker that was frozen between two statements of a batch
            silent.pgconn.enter_pipeline_mode()
            for statement in (b"BEGIN", _HOLD):
                silent.pgconn.send_query_params(statement, None)
            silent.pgconn.send_flush_request()
            while silent.pgconn.flush():
                pass
            await _until_held(servers.write_store, silent.info.backend_pid)
        else:
            await silent.execute(_HOLD)
        second = Batch(unique, 0, _FIRST, _SECOND, (Write("a", "p1", "p2", b'{"n":2}'),))
        assert await store.apply(second) is Outcome.APPLIED
    finally:
        silent.pgconn.finish()
    (found,) = (await store.read(unique, ["a"])).documents
    assert found == b'{"n":2}'


async def _until_held(dsn: str, pid: int) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        query = "SELECT FROM pg_stat_activity WHERE pid = %s AND query = %s AND wait_event = 'ClientRead'"
        while not (await connection.execute(query, [pid, _HOLD.decode()])).rowcount:
            pass


async def test_a_connection_left_in_a_pipeline_is_not_lent_again(servers: Any) -> None:
    connections = Connections(servers.write_store, most=1)
    try:
        async with connections.lend() as first:
            # As psycopg leaves it where the task is cancelled while the pipeline is entered.
            await first.pipeline().__aenter__()
        async with connections.lend() as second:
            assert await (await second.execute(b"SELECT 1")).fetchall() == [(1,)]
        assert first.closed
    finally:
        await connections.close()
