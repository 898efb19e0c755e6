"""Connections to PostgreSQL, and its errors in readside's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg import conninfo, errors

from readside.core.errors import ReadsideError, RefusedError, SchemaError, UnavailableError

#: Seconds after which a connection attempt gives up.
CONNECT_TIMEOUT = 5

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def connect(dsn: str, purpose: str, **options: Any) -> Connection:
    """Open a connection in autocommit mode.

    Args:
        dsn: a connection URL or string.
        purpose: shown in pg_stat_activity as ``readside <purpose>``.
        options: further connection parameters.

    Raises:
        UnavailableError: the server is away or not ready; waiting helps.
        RefusedError: it refuses this user or database; a person has to act.
    """
    # TCP keepalives: a peer that vanished without a word is noticed within half a minute.
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
    with translated(dsn):
        connection = await psycopg.AsyncConnection.connect(
            dsn,
            autocommit=True,
            client_encoding="utf8",
            application_name=f"readside {purpose}",
            **(defaults | options),
        )
    # Whatever the role's default is: after a lock was waited for, what it guards is looked at anew. Said by
    # each BEGIN, for a pooler keeps no settings.
    try:
        await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
    except BaseException:  # cancelled: nobody else could close it
        await connection.close()
        raise
    return connection


@asynccontextmanager
async def opened(dsn: str, purpose: str, **options: Any) -> AsyncIterator[Connection]:
    """A connection for a few statements; closed at the end, its errors in readside's words."""
    # Too few statements for any to be worth preparing, which not every pooler can take.
    connection = await connect(dsn, purpose, **({"prepare_threshold": None} | options))
    try:
        with translated(dsn):
            yield connection
    finally:
        await connection.close()


def address(dsn: str) -> str:
    """Name the server of a connection string without its secrets."""
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "PostgreSQL"
    host, port = parts.get("host") or "the local socket", parts.get("port") or 5432
    return f"PostgreSQL at {host}:{port}, database {parts.get('dbname') or parts.get('user')}"


@contextmanager
def translated(dsn: str) -> Iterator[None]:
    """Turn PostgreSQL's errors into readside's, each with its mend."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, address(dsn)) from error


_STARTING = ("starting up", "shutting down", "in recovery", "not yet accepting")
#: What a server says that has no connection left, and what gives it more.
_FULL = {
    "too many clients": "raise max_connections, or let others hold fewer connections",
    "connection slots are reserved": "raise max_connections, or let others hold fewer connections",
    "too many connections for role": "ALTER ROLE <user> CONNECTION LIMIT <more>",
    "too many connections for database": "ALTER DATABASE <database> CONNECTION LIMIT <more>",
    "exceeds max_wal_senders": "raise max_wal_senders",
}
_IDENTITY = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "no password supplied",
)


def translate(error: psycopg.Error, server: str) -> ReadsideError:
    """Find readside's error for one of psycopg's."""
    # What the server itself said, without libpq's address and PostgreSQL's excerpt of the statement.
    said = error.diag.message_primary or str(error)
    text = " ".join(said.removeprefix("connection failed: ").split())
    if isinstance(error, errors.InsufficientPrivilege):
        return RefusedError(f"{server}: {text}", mend="grant what is missing to readside's user")
    if isinstance(error, (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn)):
        return SchemaError(f"{server}: {text}", mend="run: readside init module:app")
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return RefusedError(f"{server}: {text}", mend="check READSIDE_WRITE_STORE")
    if "invalid integer value" in text or "invalid connection option" in text:
        return RefusedError(f"{server}: {text}", mend="check READSIDE_WRITE_STORE")
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return RefusedError(f"{server}: {text}", mend="see PostgreSQL's log for more")
    more = next((mend for part, mend in _FULL.items() if part in text), "")
    if more:
        return UnavailableError(f"{server} is not ready: {text}", mend=f"{more}; it is tried again")
    if any(part in text for part in _STARTING):
        return UnavailableError(f"{server} is not ready: {text}", mend="it is tried again")
    if any(part in text for part in _IDENTITY):
        return RefusedError(
            f"{server}: {text}", mend="check user, password and database in READSIDE_WRITE_STORE"
        )
    if "permission denied" in text or "must be" in text:
        return RefusedError(
            f"{server}: {text}", mend="ALTER ROLE <user> REPLICATION, and allow it in pg_hba.conf"
        )
    return UnavailableError(
        f"{server}: {text}", mend="start it, or check host and port in READSIDE_WRITE_STORE"
    )
