"""From one capture to the other, so that nothing is lost and nothing comes twice.

The cut is made while nobody writes to the outbox: a share lock waits for writers and holds new ones
back, 200 ms at most at a time. So whatever is in the outbox then has committed before the cut's place in
the log and is seen by the cut's snapshot, and whatever comes later is neither. Events before the cut
are shipped by the old capture, those after it by the new one, in one chain of records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

from psycopg import errors, sql

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import rows
from readside.adapters.postgres.slots import has_slot
from readside.core.errors import RefusedError, UnavailableError
from readside.core.position import format_lsn

_T = TypeVar("_T")

#: The advisory lock of who installs, or changes the capture.
INSTALLING = 0x7265616473696465  # "readside"

#: What a message in the log says to whoever reads the slot: here it ends.
MARK = "readside:handover"

_INDEX = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)"
_LACKING = (
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = %s::regclass AND NOT EXISTS (SELECT FROM pg_index x"
    " JOIN pg_inherits t ON t.inhrelid = x.indexrelid"
    " WHERE x.indrelid = c.oid AND t.inhparent = %s::regclass)"
)


async def is_cut(dsn: str, names: Names, mark: str) -> bool:
    """Whether a mark in the log is the one of a cut that was committed; waits for the end of a cut under way.

    Raises:
        UnavailableError, RefusedError: the server is away, or refuses.
    """
    async with opened(dsn, "handover") as connection:
        # Asked of the row, not for it: one that does not fit yet would not be waited for.
        found = await rows(
            connection,
            "SELECT capture = 'polling' AND cut_mark = %s FROM readside.capture WHERE app = %s FOR SHARE",
            [mark, names.app],
        )
    return found == [(True,)]


async def politely(connection: Connection, act: Callable[[], Awaitable[_T]]) -> _T:
    """Do what needs a lock that writers hold, in a transaction, so that others hardly wait behind us.

    Raises:
        UnavailableError: a transaction that has written to the outbox has been open all the time.
    """
    for attempt in range(150):
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '200ms'")
                return await act()
        except errors.LockNotAvailable:
            # Those who queued up behind us go first; then for longer and longer.
            await asyncio.sleep(min(0.02 * (attempt + 1), 0.5))
    raise UnavailableError(
        "A transaction that has written to the outbox stays open.",
        mend="end it (pg_stat_activity shows it), and repeat",
    )


async def make_index(connection: Connection, names: Names, done: list[str]) -> None:
    """Let polling find the rows of a transaction; writers go on meanwhile.

    Raises:
        UnavailableError: a transaction that has written to the outbox has been open all the time.
    """
    name = f"readside.{names.xid_index}"
    whole = sql.Identifier("readside", names.xid_index)
    if await rows(connection, _INDEX, [name]) == [(True,)]:
        return
    if not await rows(connection, _INDEX, [name]):
        branch = sql.Identifier("readside", names.branch)
        make = sql.SQL("CREATE INDEX {} ON ONLY {} (xid)")
        statement = make.format(sql.Identifier(names.xid_index), branch)
        await politely(connection, lambda: connection.execute(statement))
    for (leaf,) in await rows(connection, _LACKING, [f"readside.{names.branch}", name]):
        await _index_leaf(connection, whole, leaf)
    done.append(f"index {name}")


async def _index_leaf(connection: Connection, whole: sql.Identifier, leaf: str) -> None:
    index = sql.Identifier("readside", f"{leaf}_xid")
    # One that a death has left half-made is of no use.
    drop = sql.SQL("DROP INDEX IF EXISTS {}").format(index)
    await politely(connection, lambda: connection.execute(drop))
    # Waits for whoever writes, and nobody waits for it.
    await connection.execute(
        sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} (xid)").format(
            sql.Identifier(f"{leaf}_xid"), sql.Identifier("readside", leaf)
        )
    )
    attach = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(whole, index)
    await politely(connection, lambda: connection.execute(attach))


async def tidy(connection: Connection, names: Names, capture: str, done: list[str]) -> None:
    """Remove what the other capture needed, when nothing before the cut is needed any more."""
    found = await rows(
        connection,
        "SELECT 1 FROM readside.capture WHERE app = %s AND confirmed_lsn >= cut_lsn",
        [names.app],
    )
    if not found:
        return
    if capture == "polling":
        await drop_passed_slot(connection, names)
        return
    await connection.execute("DELETE FROM readside.ticks WHERE app = %s", [names.app])
    await connection.execute("DELETE FROM readside.pollers WHERE app = %s", [names.app])
    if await rows(connection, _INDEX, [f"readside.{names.xid_index}"]):
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '200ms'")
                await connection.execute(
                    sql.SQL("DROP INDEX {}").format(sql.Identifier("readside", names.xid_index))
                )
            done.append(f"dropped index readside.{names.xid_index}")
        except errors.LockNotAvailable:
            pass  # the next time


async def drop_passed_slot(connection: Connection, names: Names) -> bool:
    """Where polling captures, drop the slot if nothing before the cut is needed any more.

    It is the one that ends at the cut, or is left from a change that was given up. One of a change under
    way stays: whoever makes it holds a lock.

    Returns:
        whether none is left.
    """
    try:
        async with connection.transaction():
            await rows(
                connection,
                "SELECT pg_drop_replication_slot(s.slot_name)"
                " FROM pg_replication_slots s, readside.capture c"
                " WHERE s.slot_name = %s AND NOT s.active AND s.database = current_database()"
                " AND c.app = %s AND c.capture = 'polling' AND c.confirmed_lsn >= c.cut_lsn"
                " AND %s",
                [names.slot, names.app, await _nobody_installs(connection)],
            )
    except (errors.ObjectInUse, errors.UndefinedObject):
        pass  # somebody was faster
    return not await has_slot(connection, names.slot)


async def _nobody_installs(connection: Connection) -> bool:
    """Whether nobody else installs, until the transaction ends."""
    return (True,) in await rows(connection, "SELECT pg_try_advisory_xact_lock(%s)", [INSTALLING])


async def check_ended(connection: Connection, names: Names) -> None:
    """Make sure that no hand-over is under way.

    Raises:
        RefusedError: one is.
    """
    if await rows(
        connection,
        "SELECT 1 FROM readside.capture WHERE app = %s AND confirmed_lsn < cut_lsn",
        [names.app],
    ):
        raise RefusedError(
            "The last change of capture is still under way.",
            mend="let `readside run` go on until every projection has applied what came before it",
        )


async def cut(connection: Connection, names: Names, wanted: str, done: list[str]) -> None:
    """Let the other capture begin here.

    Raises:
        UnavailableError: a transaction that has written to the outbox has been open all the time.
    """
    lsn = await politely(connection, lambda: _cut(connection, names, wanted))
    done.append(f"capture by {wanted} from {format_lsn(lsn)} on")


async def _cut(connection: Connection, names: Names, wanted: str) -> int:
    app = names.app
    await connection.execute("SET LOCAL synchronous_commit = on")
    await rows(connection, "SELECT 1 FROM readside.capture WHERE app = %s FOR UPDATE", [app])
    # Fences off whoever polls; it has made its last tick, or makes none any more.
    await rows(
        connection,
        "INSERT INTO readside.pollers AS p (app, settled_lsn) VALUES (%s, 0) ON CONFLICT (app)"
        " DO UPDATE SET token = p.token + 1, owner = NULL",
        [app],
    )
    await connection.execute(
        sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier("readside", names.branch))
    )
    # The mark comes first, and at once: whoever reads the slot has heard of nothing beyond it before.
    # Any role can write one, but not guess what it says.
    mark = f"{app} {uuid4()}"
    place = "pg_current_wal_insert_lsn()"
    values: list[str] = []
    if wanted == "polling":
        place, values = "pg_logical_emit_message(false, %s, %s::text)", [MARK, mark]
    ((lsn,),) = await rows(connection, f"SELECT ({place} - '0/0'::pg_lsn)::bigint", values)
    if wanted == "polling":
        await rows(connection, "DELETE FROM readside.ticks WHERE app = %s", [app])
        await rows(
            connection, "UPDATE readside.pollers SET settled_lsn = %s WHERE app = %s", [lsn, app]
        )
    elif not await rows(
        connection, "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [names.slot]
    ):
        raise UnavailableError("The new slot is gone again.", mend="repeat")
    await rows(
        connection,
        "INSERT INTO readside.ticks VALUES (%s, %s, pg_current_snapshot(), true)",
        [app, lsn],
    )
    await rows(
        connection,
        "UPDATE readside.capture SET capture = %s, cut_lsn = %s, cut_mark = %s WHERE app = %s",
        [wanted, lsn, mark, app],
    )
    return int(lsn)
