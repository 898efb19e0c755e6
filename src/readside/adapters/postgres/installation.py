"""Installs readside into a database: schema, publication, slot, partitions; safe to repeat."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.handover import (
    INSTALLING,
    check_ended,
    cut,
    drop_passed_slot,
    make_index,
    tidy,
)
from readside.adapters.postgres.messages import admit, end_messages, forget_messages
from readside.adapters.postgres.migrations import migrate, packaged
from readside.adapters.postgres.names import COLUMNS, Names, checked_name
from readside.adapters.postgres.partitions import tend_partitions
from readside.adapters.postgres.slots import create_slot, drop_slot, drop_when_free
from readside.adapters.postgres.waiting import Holder, watched
from readside.core.errors import RefusedError, SchemaError, SettingsError, UnavailableError
from readside.core.position import format_lsn

log = logging.getLogger("readside.init")

_PACKAGE = "readside.adapters.postgres"
_OLDEST_SERVER = 140_000
#: They exist since 15, whose first releases sent wrong rows with them.
_COLUMN_LISTS_SINCE = 160_000
#: Looks, a second apart, after which it is said whom an installation waits for, and until it is said again.
_LOOKS = 2
_LOOKS_AGAIN = 10


async def install(
    dsn: str,
    app: str,
    partitions: int,
    max_payload: int,
    capture: str = "replication",
    *,
    outbox: str = "table",
) -> list[str]:
    """Bring the database to what this version needs, and return what was done.

    Two that run at once wait for each other. The order matters: publication before slot, for
    a slot does not see later publications; slot before the first outbox partition, for rows
    that were written before the slot would never leave. A slot begins when all transactions have
    ended that were writing: whom it waits for is said in the log.

    Raises:
        RefusedError: wal_level or a privilege is missing; the mend says how to get it.
        UnavailableError: a change of capture has to wait for a transaction; repeat.
    """
    done: list[str] = []
    names = Names(checked_name(app))
    async with opened(dsn, "init") as connection, watched(connection, dsn, _complaining()):
        await connection.execute("SELECT pg_advisory_lock(%s)", [INSTALLING])
        await _check_server(connection, capture)
        await _migrate(connection, done)
        await _branch(connection, names, done)
        await _limit(connection, names, max_payload, done)
        await _capture(connection, names, partitions, capture, done)
        await admit(connection, names, outbox, max_payload, done)
        await tend_partitions(connection, app, None, done)
    return done


def _complaining() -> Callable[[Sequence[Holder]], None]:
    """Says whom an installation waits for, soon and then from time to time."""
    looks = 0

    def say(found: Sequence[Holder]) -> None:
        nonlocal looks
        looks = looks + 1 if found else 0
        if looks % _LOOKS_AGAIN == _LOOKS:
            for holder in found:
                log.warning("init waits for %s\n  mend: %s", holder, holder.mend)

    return say


async def _check_server(connection: Connection, capture: str) -> None:
    if connection.info.server_version < _OLDEST_SERVER:
        raise RefusedError("PostgreSQL is older than 14.", mend="upgrade it to 14 or later")
    if capture == "replication":
        row = await (await connection.execute("SELECT current_setting('wal_level')")).fetchone()
        check_level(row[0] if row else "")


def check_level(wal_level: str) -> None:
    """Make sure that PostgreSQL writes what logical replication needs.

    Raises:
        RefusedError: it does not.
    """
    if wal_level != "logical":
        raise RefusedError(
            f"PostgreSQL runs with wal_level={wal_level}; logical replication needs logical.",
            mend="ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL. Where that cannot be"
            " had: capture='polling'",
        )


async def check_schema(connection: Connection) -> None:
    """Make sure that all migrations of this version were applied; newer ones do no harm.

    Raises:
        SchemaError: some were not.
    """
    rows = await (await connection.execute("SELECT name FROM readside.migrations")).fetchall()
    applied = {row[0] for row in rows}
    missing = [name for name, _ in packaged(_PACKAGE) if name not in applied]
    if missing:
        raise SchemaError(
            f"These migrations are missing: {', '.join(missing)}.",
            mend="run: readside init module:app",
        )


async def _migrate(connection: Connection, done: list[str]) -> None:
    async with connection.transaction():
        applied = await migrate(connection, _PACKAGE, "readside")
    done += [f"migration {name}" for name in applied]


async def _branch(connection: Connection, names: Names, done: list[str]) -> None:
    branch = sql.Identifier("readside", names.branch)
    if not await _exists(
        connection, "SELECT to_regclass(%s) IS NOT NULL", f"readside.{names.branch}"
    ):
        await connection.execute(
            sql.SQL(
                "CREATE TABLE {} PARTITION OF readside.outbox FOR VALUES IN ({})"
                " PARTITION BY RANGE (recorded_at)"
            ).format(branch, sql.Literal(names.app))
        )
        done.append(f"table readside.{names.branch}")
    # Only what the relay reads has to travel.
    named = connection.info.server_version >= _COLUMN_LISTS_SINCE
    columns = sql.SQL(f"({', '.join(COLUMNS)})" if named else "")
    if not await _exists(
        connection,
        "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = %s)",
        names.publication,
    ):
        await connection.execute(
            sql.SQL(
                "CREATE PUBLICATION {} FOR TABLE {} {}"
                " WITH (publish = 'insert', publish_via_partition_root = true)"
            ).format(sql.Identifier(names.publication), branch, columns)
        )
        done.append(f"publication {names.publication}")


async def _limit(connection: Connection, names: Names, largest: int, done: list[str]) -> None:
    """Let the table refuse what the broker would: once committed, it could not be refused."""
    wanted = f"octet_length((payload)::text) <= {largest}"
    name = f"payload_of_{largest}_bytes"
    found = await (
        await connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass"
            " AND conname LIKE 'payload\\_of\\_%%'",
            [f"readside.{names.branch}"],
        )
    ).fetchall()
    if found == [(name,)]:
        return
    drop = [sql.SQL("DROP CONSTRAINT {},").format(sql.Identifier(row[0])) for row in found]
    await connection.execute(
        sql.SQL("ALTER TABLE {} {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
            sql.Identifier("readside", names.branch),
            sql.SQL(" ").join(drop),
            sql.Identifier(name),
            sql.SQL(wanted),
        )
    )
    done.append(f"payloads of up to {largest} bytes")


async def _exists(connection: Connection, query: str, name: str) -> bool:
    row = await (await connection.execute(query.encode(), [name])).fetchone()
    return bool(row and row[0])


async def _capture(
    connection: Connection, names: Names, partitions: int, capture: str, done: list[str]
) -> None:
    row = await (
        await connection.execute(
            "SELECT partitions, capture FROM readside.capture WHERE app = %s", [names.app]
        )
    ).fetchone()
    if row is None:
        await _begin(connection, names, partitions, capture, done)
        return
    if row[0] != partitions:
        raise SettingsError(
            f"App {names.app} was installed with {row[0]} partitions, not {partitions}.",
            mend=f"use partitions={row[0]}: another number would move keys to other partitions",
        )
    if row[1] == capture:
        await tidy(connection, names, capture, done)
        return
    await check_ended(connection, names)
    if capture == "polling":
        await make_index(connection, names, done)
        await end_messages(connection, names)
        await cut(connection, names, capture, done)
        return
    await forget_messages(connection, names)
    await _drop_passed_on(connection, names.slot)
    await create_slot(connection, names.slot)
    try:
        await cut(connection, names, capture, done)
    except BaseException:
        # It would keep WAL for ever. Only if the notes say that polling goes on: one never knows of a
        # commit. And if this fails as well, the relay does it.
        with contextlib.suppress(psycopg.Error):
            await drop_passed_slot(connection, names)
        raise


async def _begin(
    connection: Connection, names: Names, partitions: int, capture: str, done: list[str]
) -> None:
    if capture == "polling":
        await make_index(connection, names, done)
        lsn = None
        done.append("capture by polling")
    else:
        # A slot without a capture row is the rest of an installation which died half-way.
        await drop_slot(connection, names.slot)
        lsn = await create_slot(connection, names.slot)
        done.append(f"replication slot {names.slot} at {format_lsn(lsn)}")
    async with connection.transaction():
        row = await (
            await connection.execute(
                "INSERT INTO readside.capture (app, slot, epoch, system_identifier, timeline, partitions,"
                " origin_lsn, confirmed_lsn, capture) SELECT %s, %s, extract(epoch FROM clock_timestamp())::bigint,"
                " s.system_identifier::text,"
                # Of the log itself: soon after a promotion, the last checkpoint still is of the old timeline.
                " ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int, %s,"
                " coalesce(%s, n), coalesce(%s, n), %s FROM pg_control_system() s,"
                " CAST(pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bigint) n RETURNING origin_lsn",
                [names.app, names.slot, partitions, lsn, lsn, capture],
            )
        ).fetchone()
        if capture == "polling" and row:
            # No row can be there yet: the outbox has no partition.
            await begin_ticks(connection, names.app, row[0])


async def begin_ticks(connection: Connection, app: str, lsn: int) -> None:
    """Begin to poll at a place of the log, with what is not visible yet."""
    await connection.execute(
        "INSERT INTO readside.pollers AS p (app, settled_lsn) VALUES (%s, %s) ON CONFLICT (app)"
        " DO UPDATE SET token = p.token + 1, owner = NULL, settled_lsn = excluded.settled_lsn",
        [app, lsn],
    )
    await connection.execute("DELETE FROM readside.ticks WHERE app = %s", [app])
    await connection.execute(
        "INSERT INTO readside.ticks VALUES (%s, %s, pg_current_snapshot(), false)", [app, lsn]
    )


async def _drop_passed_on(connection: Connection, slot: str) -> None:
    """Drop a slot whose reader has nothing more to read, and may not be quite gone.

    Raises:
        UnavailableError: somebody goes on reading it.
    """
    if not await drop_when_free(connection, slot, 60):
        raise UnavailableError(
            f"Slot {slot} is still read, though the outbox was handed over to polling.",
            mend="end its reader (pg_replication_slots has active_pid), and repeat",
        )
