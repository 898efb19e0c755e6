"""Whom readside waits for in PostgreSQL: transactions of others, told so that a person can end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.session import rows
from readside.core.errors import ReadsideError
from readside.ports.ending import end

#: Seconds between two looks.
_LOOK_EVERY = 1.0
#: Characters of a statement that are shown.
_SHOWN = 60
#: Transactions told at most, of each kind.
_TOLD = 3

_RUNNING = (
    "SELECT a.pid, coalesce(a.usename, '') AS owner, coalesce(a.application_name, '') AS name,"
    " coalesce(a.state, '') AS state,"
    " extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.state_change))::float8 AS age,"
    " left(coalesce(a.query, ''), 1000) AS query FROM pg_stat_activity a WHERE {which}"
    f" ORDER BY age DESC NULLS LAST LIMIT {_TOLD}"
)
_PREPARED = (
    "SELECT p.gid, p.owner, p.database, extract(epoch FROM clock_timestamp() - p.prepared)::float8 AS age"
    f" FROM pg_prepared_xacts p WHERE {{which}} ORDER BY age DESC LIMIT {_TOLD}"
)


class Holder(NamedTuple):
    """A transaction that holds readside up."""

    #: Who it is, always in the same words.
    name: str
    #: What it is at, and for how long.
    doing: str
    #: Seconds; None where PostgreSQL does not tell this user.
    age: float | None
    mend: str

    def __str__(self) -> str:
        return f"{self.name}, {self.doing}"


@asynccontextmanager
async def watched(
    connection: Connection, dsn: str, say: Callable[[Sequence[Holder]], None]
) -> AsyncIterator[None]:
    """While statements of the block run, tell every second whom the one that runs waits for.

    Args:
        connection: which runs them.
        dsn: for another connection, which looks.
        say: told whom, or that it is nobody.
    """
    ((pid,),) = await rows(connection, "SELECT pg_backend_pid()")
    looking = asyncio.create_task(_look(dsn, pid, say))
    try:
        yield
    finally:
        await end([looking])


async def _look(dsn: str, pid: int, say: Callable[[Sequence[Holder]], None]) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        with suppress(ReadsideError):  # whoever waits finds out by itself that the server is away
            async with opened(dsn, "look") as connection:
                while True:
                    say(await _awaited(connection, pid))
                    await asyncio.sleep(_LOOK_EVERY)


async def _awaited(connection: Connection, pid: int) -> list[Holder]:
    running = await rows(
        connection, _RUNNING.format(which="a.pid = ANY(pg_blocking_pids(%s))"), [pid]
    )
    prepared = await rows(
        connection,
        _PREPARED.format(
            which="p.transaction IN"
            " (SELECT l.transactionid FROM pg_locks l WHERE l.pid = %s AND NOT l.granted)"
        ),
        [pid],
    )
    return _holders(running, prepared)


async def longest(connection: Connection, seconds: float) -> Holder | None:
    """The transaction of the server that has written and been open for longest, if for so many seconds.

    Those of other users are only seen by who may (pg_read_all_stats).
    """
    running = await rows(
        connection,
        _RUNNING.format(
            which="a.backend_xid IS NOT NULL"
            " AND a.xact_start < clock_timestamp() - make_interval(secs => %s)"
        ),
        [seconds],
    )
    prepared = await rows(
        connection,
        _PREPARED.format(which="p.prepared < clock_timestamp() - make_interval(secs => %s)"),
        [seconds],
    )
    return max(_holders(running, prepared), key=lambda one: one.age or 0.0, default=None)


def _holders(
    running: Sequence[tuple[Any, ...]], prepared: Sequence[tuple[Any, ...]]
) -> list[Holder]:
    found = []
    for pid, user, application, state, age, query in running:
        name = f"PID {pid} of user {user}" + (f" ({application})" if application else "")
        statement = _cut(query)
        doing = f"{state or 'at work'}{_for(age)}" + (f": {statement}" if statement else "")
        mend = f"let it end, or SELECT pg_terminate_backend({pid})"
        found.append(Holder(name, doing, age, mend))
    for gid, owner, database, age in prepared:
        quoted = gid.replace("'", "''")
        name = f"the prepared transaction '{quoted}' of user {owner} in database {database}"
        mend = f"let it end, or in that database: ROLLBACK PREPARED '{quoted}'"
        found.append(Holder(name, f"open{_for(age)}", age, mend))
    return found


def _for(age: float | None) -> str:
    return "" if age is None else f" for {age:.0f} s"


def _cut(query: str) -> str:
    text = " ".join(query.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
