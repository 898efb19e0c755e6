"""Replication slots: their names are the server's, and they belong to a database.

A copy of the database in the same server has the same notes, and must not touch the original's slot.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from psycopg import errors

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.session import rows
from readside.core.errors import RefusedError, SchemaError
from readside.core.position import parse_lsn

_FAILOVER_SLOTS_SINCE = 170_000


async def create_slot(connection: Connection, slot: str) -> int:
    """Create the slot, surviving a failover where the server can; return where it begins.

    Raises:
        RefusedError: the server has no slot left, the user may not, or another database has it.
    """
    arguments = "%s, 'pgoutput', false, false"
    if connection.info.server_version >= _FAILOVER_SLOTS_SINCE:
        arguments += ", true"
    try:
        row = await (
            await connection.execute(
                f"SELECT lsn::text FROM pg_create_logical_replication_slot({arguments})".encode(),
                [slot],
            )
        ).fetchone()
    except errors.ConfigurationLimitExceeded as error:
        raise RefusedError(
            "All replication slots of PostgreSQL are in use.",
            mend="raise max_replication_slots and restart, or drop a slot that nobody needs",
        ) from error
    except errors.InsufficientPrivilege as error:
        raise RefusedError(
            f"User {connection.info.user} may not create replication slots.",
            mend=f"ALTER ROLE {connection.info.user} REPLICATION",
        ) from error
    except errors.DuplicateObject as error:
        owner = await rows(
            connection,
            "SELECT coalesce(database, '') FROM pg_replication_slots"
            " WHERE slot_name = %s AND database IS DISTINCT FROM current_database()",
            [slot],
        )
        if not owner:
            raise
        raise RefusedError(
            f"Slot {slot} belongs to {f'database {owner[0][0]}' if owner[0][0] else 'a standby'} of this server:"
            f" is {connection.info.dbname} a copy of it?",
            mend="give the app of the copy another name, or put it on a server of its own",
        ) from error
    if row is None:
        raise SchemaError(f"The slot {slot} could not be created.")
    return parse_lsn(row[0])


async def drop_slot(connection: Connection, slot: str) -> None:
    """Drop a slot of this database if it exists and nobody reads it."""
    await connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
        " WHERE slot_name = %s AND database = current_database() AND NOT active",
        [slot],
    )


async def has_slot(connection: Connection, slot: str) -> bool:
    """Whether this database has a slot."""
    return bool(
        await rows(
            connection,
            "SELECT FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()",
            [slot],
        )
    )


async def drop_when_free(
    connection: Connection, slot: str, attempts: int, *, ends_reader: bool = False
) -> bool:
    """Drop a slot of this database as soon as nobody reads it; return whether it is gone.

    Args:
        connection: of a user who may.
        slot: its name.
        attempts: looks, half a second apart at most.
        ends_reader: whoever reads it is ended, again and again.
    """
    for attempt in range(attempts):
        if ends_reader:
            await rows(
                connection,
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                " WHERE slot_name = %s AND database = current_database() AND active",
                [slot],
            )
        with suppress(errors.ObjectInUse, errors.UndefinedObject):  # somebody was faster
            await drop_slot(connection, slot)
        if not await has_slot(connection, slot):
            return True
        await asyncio.sleep(min(0.02 * (attempt + 1), 0.5))
    return False
