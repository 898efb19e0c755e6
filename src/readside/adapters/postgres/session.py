"""One connection for readside's own notes, opened when needed and again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from readside.adapters.postgres.connection import Connection, address, connect, translate
from readside.core.errors import UnavailableError

#: Seconds after which a silent server counts as away.
PATIENCE = 15.0


class Session:
    """Serialises short statements over one connection.

    After any error of the connection it is dropped: an answer which was not read can
    then never be taken for the answer to the next question.

    Args:
        plain: ask nothing of the connection that a pooler in transaction mode could not give: no
            settings, no prepared statements.
        patience: seconds after which a silent server counts as away.
    """

    def __init__(
        self, dsn: str, purpose: str, *, plain: bool = False, patience: float = PATIENCE
    ) -> None:
        self.dsn = dsn
        self._patience = patience
        self._purpose = purpose
        # A note must be as durable as the slot, whatever the database is set to; and whoever had to wait
        # for another statement goes on with what it has left.
        self._options: dict[str, Any] = (
            {"prepare_threshold": None}
            if plain
            else {
                "options": "-c synchronous_commit=on"
                " -c default_transaction_isolation=read\\ committed"
            }
        )
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None

    async def query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        Raises:
            UnavailableError, RefusedError, SchemaError: see `connection.translate`.
        """
        async with self.connection() as connection:
            return await rows(connection, statement, values)

    @asynccontextmanager
    async def connection(self, *, watched: bool = False) -> AsyncIterator[Connection]:
        """Lend the connection; nobody else uses it meanwhile.

        Args:
            watched: whoever borrows it finds out by other ways that the server is away, and has time.
        """
        async with self._lock:
            whole = False
            try:
                async with asyncio.timeout(None if watched else self._patience):
                    if self._connection is None:
                        self._connection = await connect(self.dsn, self._purpose, **self._options)
                    yield self._connection
                whole = True
            except psycopg.Error as error:
                whole = not self._connection or not self._connection.closed
                raise translate(error, address(self.dsn)) from error
            except TimeoutError as error:
                raise UnavailableError(
                    f"{address(self.dsn)} did not answer within {self._patience:.0f} seconds.",
                    mend="look for locks on readside's tables and for a stalled server",
                ) from error
            finally:
                if not whole:
                    await self._drop()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend the connection inside a transaction."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        """Disconnect, after whoever uses the connection: libpq must not lose it in mid-flight."""
        async with self._lock:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def rows(
    connection: Connection, statement: str, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Run one statement on a connection and return its rows, if it has any."""
    cursor = await connection.execute(statement.encode(), values or None)
    return await cursor.fetchall() if cursor.description else []
