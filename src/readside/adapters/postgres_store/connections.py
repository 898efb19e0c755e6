"""Connections to the read store, opened when needed and given up after any failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import pq

from readside.adapters.postgres.connection import Connection, address, connect, translate
from readside.core.errors import ReadsideError, RefusedError, UnavailableError

#: Seconds after which a silent server counts as away.
_PATIENCE = 30.0
_SETTING = "READSIDE_WRITE_STORE"
#: Everything is looked up by its key: whatever the statistics of a table are that was just made, no plan
#: shall read all of it. What the database sets for itself is not for this session: texts of dates and
#: intervals, and a commit that is on disk when it is answered.
_SETTINGS = (
    "SELECT set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false),"
    " set_config('TimeZone', 'UTC', false),"
    " set_config('DateStyle', 'ISO, YMD', false), set_config('IntervalStyle', 'iso_8601', false),"
    " set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off'"
    " THEN 'local' ELSE current_setting('synchronous_commit') END, false)"
)


class Connections:
    """At most so many connections, each lent to one at a time.

    One that was interrupted in the middle of something is closed: an answer which was not read can
    then never be taken for the answer to the next question.
    """

    def __init__(self, dsn: str, most: int = 8) -> None:
        self.dsn = dsn
        self._free: list[Connection] = []
        self._closed = False
        self._turn = asyncio.Semaphore(most)

    @asynccontextmanager
    async def lend(self, patience: float | None = _PATIENCE) -> AsyncIterator[Connection]:
        """A connection in autocommit mode.

        Args:
            patience: seconds after which a silent server counts as away; None for what may take long.

        Raises:
            UnavailableError, RefusedError, SchemaError: psycopg's errors in readside's words.
        """
        async with self._turn:
            connection: Connection | None = None
            try:
                async with asyncio.timeout(patience):
                    connection = await self._take()
                    yield connection
            except psycopg.Error as error:
                raise self.translate(error) from error
            except TimeoutError as error:
                raise UnavailableError(
                    f"{address(self.dsn)} did not answer within {patience or 0:.0f} seconds.",
                    mend="look for locks on the tables of the views, and for a stalled server",
                ) from error
            finally:
                if connection is not None:
                    await self._back(connection)

    async def _take(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
        try:
            connection = await connect(self.dsn, "store")
        except ReadsideError as error:
            raise _renamed(error) from error
        try:
            await connection.execute(_SETTINGS)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _back(self, connection: Connection) -> None:
        # Whoever is cancelled while psycopg enters a pipeline leaves it entered, and what is asked there
        # next has no answer: that would be taken for nothing there.
        whole = (
            connection.pgconn.transaction_status == pq.TransactionStatus.IDLE
            and connection.pgconn.pipeline_status == pq.PipelineStatus.OFF
        )
        if whole and not self._closed:
            self._free.append(connection)
        else:
            await connection.close()

    def translate(self, error: psycopg.Error) -> ReadsideError:
        """Find readside's error for one of psycopg's."""
        # The other connections go to the same server, which may have ended all of them.
        if isinstance(error, psycopg.OperationalError):
            self._free, gone = [], self._free
            for connection in gone:
                connection.pgconn.finish()
        return _renamed(translate(error, address(self.dsn)))

    async def close(self) -> None:
        """Disconnect; what is lent is closed when it comes back."""
        self._closed = True
        while self._free:
            await self._free.pop().close()


def _renamed(error: ReadsideError) -> ReadsideError:
    """The same error, told of the setting which names this server."""
    error.mend = error.mend.replace(_SETTING, "READSIDE_READ_STORE")
    if isinstance(error, RefusedError):
        error.mend = error.mend.replace(
            "ALTER ROLE <user> REPLICATION, and allow it in pg_hba.conf",
            "let readside's user use the schemas readside_store and of the views",
        )
    return error
