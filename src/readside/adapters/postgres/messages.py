"""Whose messages of the log are events: since when, and until when.

Any role may write messages, so that those of an app count only from the `readside init` on that was asked
for them. They end where capture by polling begins, which cannot see them: from then on writing one fails.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import Session, rows
from readside.core.errors import RefusedError, SettingsError, UnavailableError
from readside.core.position import format_lsn

#: Behind the end of every log.
NEVER: Final = 2**63 - 1


class Admission(NamedTuple):
    """Which messages are events."""

    #: Those of transactions that committed here or later.
    from_lsn: int
    #: Bytes of a payload that travel.
    max_payload: int


async def admission(dsn: str, app: str) -> Admission:
    """Ask; waits for a change under way.

    Raises:
        UnavailableError, RefusedError: the server is away, or refuses.
    """
    async with opened(dsn, "messages") as connection:
        found = await rows(
            connection,
            "SELECT from_lsn, max_payload FROM readside.messages WHERE app = %s FOR SHARE",
            [app],
        )
    return Admission(*found[0]) if found else Admission(NEVER, 0)


async def check_admitted(session: Session, app: str) -> None:
    """Make sure that messages may be written.

    Raises:
        SettingsError: not so.
    """
    if not await session.query(
        "SELECT 1 FROM readside.messages WHERE app = %s AND from_lsn < %s AND ended IS NULL",
        [app, NEVER],
    ):
        raise SettingsError(
            f"App {app} is not installed for outbox=message.",
            mend="run: readside init module:app, with outbox=message",
        )


async def admit(
    connection: Connection, names: Names, outbox: str, max_payload: int, done: list[str]
) -> None:
    """Let messages be events from here on, if that is asked for and they are not yet.

    Once they are, they stay: so a change of the setting needs no moment at which every writer changes.
    The place is found under the row's lock, which the relay's question waits for: whether a message
    counts then has one answer, at every sending.

    Raises:
        RefusedError: the right to write messages is missing.
    """
    await rows(
        connection,
        "UPDATE readside.messages SET max_payload = %s WHERE app = %s AND max_payload <> %s",
        [max_payload, names.app, max_payload],
    )
    if outbox != "message":
        return
    await _check_right(connection)
    await rows(
        connection,
        "INSERT INTO readside.messages (app, max_payload) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [names.app, max_payload],
    )
    async with connection.transaction():
        ((from_lsn, ended),) = await rows(
            connection,
            "SELECT from_lsn, ended::text FROM readside.messages WHERE app = %s FOR UPDATE",
            [names.app],
        )
        if from_lsn == NEVER:
            ((from_lsn,),) = await rows(
                connection,
                "UPDATE readside.messages SET from_lsn = pg_current_wal_insert_lsn() - '0/0'::pg_lsn,"
                " ended = NULL WHERE app = %s RETURNING from_lsn",
                [names.app],
            )
            done.append(f"events as messages of the log from {format_lsn(from_lsn)} on")
        elif ended is not None:
            await rows(
                connection, "UPDATE readside.messages SET ended = NULL WHERE app = %s", [names.app]
            )
            done.append("events as messages of the log again")


async def _check_right(connection: Connection) -> None:
    # By name, for it has one argument more since PostgreSQL 17.
    ((allowed,),) = await rows(
        connection,
        "SELECT bool_and(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc"
        " WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace",
    )
    if not allowed:
        user = connection.info.user
        raise RefusedError(
            f"User {user} may not write messages into the log.",
            mend="for each of its forms (\\df pg_logical_emit_message):"
            f" GRANT EXECUTE ON FUNCTION pg_logical_emit_message(…) TO {user}",
        )


async def end_messages(connection: Connection, names: Names) -> None:
    """Let no message be written any more, and wait for those that were begun.

    Raises:
        UnavailableError: a transaction from before stays open.
    """
    await rows(
        connection,
        "UPDATE readside.messages SET ended = pg_current_xact_id() WHERE app = %s AND ended IS NULL",
        [names.app],
    )
    for attempt in range(60):
        if not await rows(
            connection,
            "SELECT 1 FROM readside.messages WHERE app = %s"
            " AND ended >= pg_snapshot_xmin(pg_current_snapshot())",
            [names.app],
        ):
            return
        await asyncio.sleep(min(0.02 * (attempt + 1), 0.5))
    raise UnavailableError(
        "A transaction which may have written messages stays open.",
        mend="end it (pg_stat_activity shows it), and repeat",
    )


async def forget_messages(connection: Connection, names: Names) -> None:
    """Let none be an event, where nothing of the time before is needed any more."""
    await rows(connection, "DELETE FROM readside.messages WHERE app = %s", [names.app])
