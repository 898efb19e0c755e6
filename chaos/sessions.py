"""Faults on sessions of a PostgreSQL: they are ended, or hold what others need for long."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg

from chaos.app import app
from chaos.timeline import last
from chaos.workload import RARE, Change, perform

#: Everybody's who is not of the harness: the application and readside, not the server's own helpers.
_STRANGERS = (
    "backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
    " AND application_name NOT LIKE 'chaos%'"
)
_END = f"SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {_STRANGERS}"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
#: How many of the long transactions do not commit.
_ROLLED_BACK = 0.25


async def end_backends(dsn: str) -> int:
    """End all sessions at once, in the middle of whatever they do; how many."""
    async with await _connect(dsn) as connection:
        return int(await _one(connection, _END))


async def lock_table(dsn: str, seconds: float, dice: float, stopping: asyncio.Event) -> int:
    """Hold a table of documents as a change of it would; how many had to wait in the end."""
    table = ("lists", "counters", "totals")[int(dice * 3)]
    async with await _connect(dsn) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE chaos.{table} IN ACCESS EXCLUSIVE MODE".encode())
        await last(seconds, stopping)
        return int(await _one(connection, _WAITING))


async def long_transaction(dsn: str, seconds: float, dice: float, stopping: asyncio.Event) -> int:
    """Record at once, and commit (or, now and then, do not) a long time later; how many events it recorded."""
    chance = random.Random(f"long {dice}")
    change = Change({key: chance.randint(1, 4) for key in chance.sample(RARE, 2)})
    async with (
        await _connect(dsn) as connection,
        connection.transaction(force_rollback=dice < _ROLLED_BACK),
    ):

        async def execute(query: str, values: Any) -> Any:
            return await (await connection.execute(query.encode(), values)).fetchone()

        done = await perform(execute, change, "long", chance)
        await app.record(connection, *done.events)
        await last(seconds, stopping)
    return len(done.events)


async def _connect(dsn: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, connect_timeout=10, application_name="chaos fault",
        options="-c lock_timeout=10s", tcp_user_timeout=5000,
    )  # fmt: skip


async def _one(connection: psycopg.AsyncConnection[Any], query: str) -> Any:
    row = await (await connection.execute(query.encode())).fetchone()
    return row[0] if row else 0
