"""Partitions of the outbox, a day each: made ahead, and dropped when they are old."""

from __future__ import annotations

import datetime as dt
import logging

from psycopg import errors, sql

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.names import Names

log = logging.getLogger("readside")

#: Days of partitions made ahead.
_AHEAD = 14
#: How long writers may have to wait behind us for a lock that a long transaction holds.
_PATIENCE = b"SET LOCAL lock_timeout = '200ms'"

#: What the oldest tick sees that anybody needs; no row where nobody polls.
_SETTLED = (
    "SELECT t.snapshot::text FROM readside.ticks t JOIN readside.capture c USING (app)"
    " WHERE t.app = %s AND (c.capture = 'polling' OR c.confirmed_lsn < c.cut_lsn)"
    " ORDER BY t.lsn LIMIT 1"
)
_UNSETTLED = (
    "SELECT EXISTS (SELECT FROM {table}"
    " WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)"
    " AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot))"
)


async def tend_partitions(
    connection: Connection, app: str, retention: dt.timedelta | None, done: list[str]
) -> bool:
    """Make outbox partitions for the days to come, and drop those older than `retention`.

    Never waits long for a lock, because writers queue up behind it: what cannot be had now is had
    at the next round. Old WAL stays readable for the slot when its table is gone; where polling
    captures, a partition stays until all of it is settled.

    Returns:
        whether everything could be done.
    """
    names = Names(app)
    # The clock that fills recorded_at, not this machine's.
    query = "SELECT (now() AT TIME ZONE 'UTC')::date"
    ((today,),) = await (await connection.execute(query.encode())).fetchall()
    existing = await _leaves(connection, names)
    wanted = [None, *(today + dt.timedelta(days=ahead) for ahead in range(-1, _AHEAD))]
    missing = [day for day in wanted if _leaf(names, day) not in existing]
    outdated: list[str] = []
    if retention is not None:
        oldest = _leaf(names, today - retention)
        outdated = [leaf for leaf in sorted(existing) if leaf < oldest and leaf[-8:].isdigit()]
    complete = True
    for day in missing:
        complete &= await _make(connection, names, day)
    if missing and complete:
        done.append(f"outbox partitions up to {missing[-1] or 'the default one'}")
    for leaf in outdated:
        drop = sql.SQL("DROP TABLE {}").format(sql.Identifier("readside", leaf))
        gone = await _discard(connection, names, leaf, drop)
        if gone:
            done.append(f"dropped readside.{leaf}")
        elif gone is None:
            log.warning("readside.%s is old, and stays until every projection has applied it", leaf)
        complete &= gone is not False
    if retention is not None:
        complete &= await _empty_rest(connection, names, retention, done)
    return complete


async def _empty_rest(
    connection: Connection, names: Names, retention: dt.timedelta, done: list[str]
) -> bool:
    """Empty the default partition when all its rows are old: it has some after weeks without us."""
    name = _leaf(names, None)
    rest = sql.Identifier("readside", name)
    newest = await (
        await connection.execute(
            sql.SQL("SELECT max(recorded_at) < now() - {}::interval FROM {}").format(
                sql.Literal(retention), rest
            )
        )
    ).fetchone()
    if newest != (True,):
        return True
    # Inserts alone are published.
    gone = await _discard(connection, names, name, sql.SQL("TRUNCATE {}").format(rest))
    if gone:
        done.append(f"emptied readside.{name}")
    return gone is not False


async def _discard(
    connection: Connection, names: Names, leaf: str, statement: sql.Composed
) -> bool | None:
    """Do away with rows; False where a lock could not be had, None where somebody still needs them.

    A slot has them in its log. Polling has them only here, so they stay until they are settled; and
    nobody may write more between the question and the deed.
    """
    table = sql.Identifier("readside", leaf)
    try:
        # First without a lock: an answer that takes long must hold up nobody.
        if await _needed(connection, names, table):
            return None
        async with connection.transaction():
            await connection.execute(_PATIENCE)
            # From above, as everybody who reads or writes takes them; to drop a leaf takes both.
            for relation in (sql.Identifier("readside", names.branch), table):
                await connection.execute(
                    sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(relation)
                )
            if await _needed(connection, names, table):
                return None
            await connection.execute(statement)
    except errors.LockNotAvailable:
        return False
    except errors.UndefinedTable:
        pass  # another process was faster
    return True


async def _needed(connection: Connection, names: Names, table: sql.Identifier) -> bool:
    """Whether polling has yet to settle rows of a leaf."""
    found = await (await connection.execute(_SETTLED, [names.app])).fetchone()
    if found is None:
        return False
    unsettled = await connection.execute(
        sql.SQL(_UNSETTLED).format(table=table), {"snapshot": found[0]}
    )
    return await unsettled.fetchone() == (True,)


async def _leaves(connection: Connection, names: Names) -> set[str]:
    found = await (
        await connection.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = %s::regclass",
            [f"readside.{names.branch}"],
        )
    ).fetchall()
    return {row[0] for row in found}


def _leaf(names: Names, day: dt.date | None) -> str:
    return f"{names.branch}__{day:%Y%m%d}" if day else f"{names.branch}__rest"


async def _make(connection: Connection, names: Names, day: dt.date | None) -> bool:
    bounds: sql.Composable = sql.SQL("DEFAULT")
    if day:
        first, last = (f"{edge:%Y-%m-%d} 00:00:00+00" for edge in (day, day + dt.timedelta(days=1)))
        bounds = sql.SQL("FOR VALUES FROM ({}) TO ({})").format(
            sql.Literal(first), sql.Literal(last)
        )
    try:
        # Rows are never updated, so pages can be full; autovacuum only has to freeze.
        async with connection.transaction():
            await connection.execute(_PATIENCE)
            await connection.execute(
                sql.SQL("CREATE TABLE {} PARTITION OF {} {} WITH (fillfactor = 100)").format(
                    sql.Identifier("readside", _leaf(names, day)),
                    sql.Identifier("readside", names.branch),
                    bounds,
                )
            )
    except errors.LockNotAvailable:
        return False
    except errors.CheckViolation:
        # Nobody made the partition in time, and rows of this day are in the default one already.
        log.warning("rows of %s stay in readside.%s", day, _leaf(names, None))
    except errors.DuplicateTable:
        pass  # another process was faster
    return True
