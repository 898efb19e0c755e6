"""A transaction of the write store which records events with the rows that it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import psycopg
from psycopg import pq
from psycopg.rows import namedtuple_row, tuple_row

from readside.core.errors import ReadsideError
from readside.core.event import Event
from readside.core.partition import partition_of
from readside.core.position import Position, parse_lsn
from readside.core.token import Token
from readside.ports.probe import probe
from readside.write.outbox import Row, row_of
from readside.write.recording import TABLE, Recording

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

_WHERE = (
    b"SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_insert_lsn()::text,"
    b" (SELECT epoch FROM readside.capture WHERE app = %s)"
)


class Inline(Protocol):
    """Folds events into the projections that are part of the transaction."""

    async def run_async(
        self, connection: psycopg.AsyncConnection[Any], rows: Sequence[Row]
    ) -> None:
        """Do so for these rows of the outbox.

        Raises:
            HandlerError: a handler fails; the transaction has to be rolled back.
        """


class NotCommittedError(ReadsideError):
    """The transaction was rolled back at its end; nothing of it is there."""


class Transaction:
    """``async with app.transaction() as tx``: commits at the end, rolls back on an exception.

    Attributes:
        connection: the psycopg connection, for everything that this class does not wrap.
        touched: wire type and partition of everything that was recorded.
    """

    connection: psycopg.AsyncConnection[Any]

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        app: str,
        *,
        partitions: int,
        largest: int,
        inline: Inline | None = None,
        recording: Recording = TABLE,
    ) -> None:
        self._inline = inline
        self._recording = recording
        self._pool = pool
        self._app = app
        self._partitions = partitions
        self._largest = largest
        self._rows: list[Row] = []
        self.touched: set[tuple[str, int]] = set()
        self._token: Token | None = None
        self._late: Mapping[str, ReadsideError] | None = None

    @property
    def token(self) -> Token:
        """What a reader needs to see this write; known after the block.

        Raises:
            RuntimeError: the transaction has not been committed.
        """
        if self._token is None:
            raise RuntimeError(
                "tx.token is known after the block, when the transaction is committed"
            )
        return self._token

    @property
    def late(self) -> Mapping[str, ReadsideError]:
        """The projections in mode ``wait`` which do not show this write; known after the block.

        Empty: every reader sees it. Otherwise by the projection's name what a reader would be told
        who asks with the token: `StaleReadError` where the deadline has passed, `ParkedError` where
        the document waits behind an event that cannot be applied, `UnavailableError` where the read
        store is away. The write stands in any case, and the view catches up.

        Raises:
            RuntimeError: the transaction has not been committed.
        """
        if self._late is None:
            raise RuntimeError("tx.late is known after the block, like tx.token")
        return self._late

    @late.setter
    def late(self, late: Mapping[str, ReadsideError]) -> None:
        self._late = late

    @property
    def rows(self) -> Sequence[Row]:
        """What was recorded since the last `flush`."""
        return self._rows

    def record(self, *events: Event, headers: Mapping[str, str] | None = None) -> None:
        """Record events; they are written with the commit, in this order, in one round trip.

        Args:
            events: what has happened.
            headers: travel with the events, e.g. ``traceparent``.

        Raises:
            PayloadError: an event cannot be recorded; nothing of this call is.
        """
        rows = [row_of(self._app, event, headers, self._largest) for event in events]
        self._rows += rows
        self.touched |= {(row[4], partition_of(row[3], self._partitions)) for row in rows}

    async def flush(self) -> None:
        """Write what was recorded so far, within the transaction.

        For those that record a hundred thousand events and more in one transaction: in between, it
        keeps the memory bounded. The commit does it for everybody else. Where it fails, the
        transaction is over, also for those who catch the error.

        Raises:
            RuntimeError: a savepoint is open, whose rollback would take events of before with it; or
                a pipeline, in which a view cannot be read.
        """
        connection = self.connection
        if getattr(connection, "_num_transactions", 0):  # psycopg says it nowhere else
            raise RuntimeError("flush() inside a savepoint; call it before or after")
        if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            raise RuntimeError("flush() inside a pipeline; call it before or after")
        rows = list(self._rows)
        try:
            await self._fold(rows)
            async with connection.pipeline():
                for statement, values in self._recording.statements(rows):
                    await connection.execute(statement, values)
        except BaseException:
            # Or what comes next in the block would run, and commit, without what was before.
            await connection.close()
            raise
        del self._rows[: len(rows)]

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that can fail alone: an exception takes back its statements and what it recorded."""
        rows, touched = len(self._rows), set(self.touched)
        try:
            async with self.connection.transaction():
                yield
        except BaseException:
            del self._rows[rows:]
            self.touched = touched
            raise

    async def execute(self, query: str, *values: Any) -> psycopg.AsyncCursor[Any]:
        """Run a statement."""
        return await self.connection.execute(query.encode(), values or None)

    async def fetchone(self, query: str, *values: Any) -> Any:
        """Run a statement and return its first row as a named tuple, or None."""
        return await (await self.execute(query, *values)).fetchone()

    async def fetchall(self, query: str, *values: Any) -> list[Any]:
        """Run a statement and return its rows as named tuples."""
        return await (await self.execute(query, *values)).fetchall()

    async def __aenter__(self) -> Self:
        asked = _cancellations()
        self.connection = await self._pool.getconn()
        try:
            _keep_cancellation(asked)
            self.connection.row_factory = namedtuple_row
            await self.connection.execute(b"BEGIN")
        except BaseException:
            await self._give_back(whole=False)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        whole = False
        try:
            if kind is None:
                await self._fold_or_roll_back()
                probe("write.committing")
                await self._commit()
                probe("write.committed")
            else:
                await self._roll_back()
            whole = True
        finally:
            await self._give_back(whole=whole)

    async def _fold(self, rows: Sequence[Row]) -> None:
        """Fold events into the inline projections, before anything of it is visible."""
        failed = self.connection.info.transaction_status == pq.TransactionStatus.INERROR
        if self._inline is not None and rows and not failed:
            await self._inline.run_async(self.connection, rows)

    async def _fold_or_roll_back(self) -> None:
        status = self.connection.info.transaction_status
        if self.connection.closed or status == pq.TransactionStatus.IDLE:
            raise NotCommittedError(
                "it had ended inside the block already",
                mend="let errors of flush() leave the block, and leave COMMIT and ROLLBACK to it",
            )
        try:
            await self._fold(self._rows)
        except BaseException:
            await self._roll_back()
            raise

    async def _commit(self) -> None:
        connection = self.connection
        failed = connection.info.transaction_status == pq.TransactionStatus.INERROR
        try:
            async with connection.pipeline():
                how = await self._write(failed=failed)
                committed = await connection.execute(b"COMMIT")
                where = await self._ask(_WHERE, [self._app])
        except BaseException:
            # psycopg takes statements for prepared that a pipeline which broke off never prepared.
            await connection.close()
            raise
        if committed.statusmessage != "COMMIT":
            raise NotCommittedError(
                "a statement had failed inside the block",
                mend="let the error of a failed statement leave the block, or use tx.savepoint()",
            )
        flushed, inserted, epoch = await where.fetchone()  # type: ignore[misc]  # one row, always
        # Under synchronous_commit = off the own commit may not be flushed yet, but it is inserted.
        unsure = how is None or (await how.fetchone())[0] == "off"  # type: ignore[index]  # as above
        lsn = inserted if unsure else flushed
        partitions = {number for _, number in self.touched}
        self._token = Token(Position(epoch, parse_lsn(lsn), 0), tuple(sorted(partitions)))

    async def _write(self, *, failed: bool) -> psycopg.AsyncCursor[Any] | None:
        """Write what was recorded; ask how the commit will be, before it takes back a SET LOCAL."""
        recording = self._recording
        work = recording.statements(self._rows) if failed else recording.closing(self._rows)
        last: psycopg.AsyncCursor[Any] | None = None
        for statement, values in work:
            last = await self._ask(statement, values)
        return None if failed else last

    async def _ask(
        self, statement: bytes, values: list[Any] | None = None
    ) -> psycopg.AsyncCursor[Any]:
        # Whatever rows the user wants from the connection, ours are tuples.
        cursor: psycopg.AsyncCursor[Any] = self.connection.cursor(row_factory=tuple_row)
        return await cursor.execute(statement, values)

    async def _roll_back(self) -> None:
        if self.connection.broken:
            return
        try:
            await self.connection.execute(b"ROLLBACK")
        except psycopg.Error:
            await self.connection.close()

    async def _give_back(self, *, whole: bool) -> None:
        idle = self.connection.pgconn.transaction_status == pq.TransactionStatus.IDLE
        if not whole and not idle and not self.connection.closed:
            # Cancelled or broken in the middle: an unread answer must not meet the next user.
            await self.connection.close()
        await self._pool.putconn(self.connection)


async def newest(pool: AsyncConnectionPool[Any], app: str) -> Position:
    """A position past everything that is committed now, on whatever connection."""
    async with pool.connection() as connection:
        cursor = connection.cursor(row_factory=tuple_row)
        row = await (await cursor.execute(_WHERE, [app])).fetchone()
    _, inserted, epoch = row or (None, "0/0", 0)
    return Position(epoch, parse_lsn(inserted), 0)


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _keep_cancellation(before: int) -> None:
    """Raise a cancellation that was asked for since, and swallowed.

    asyncio.wait_for, in which the pool waits, does that before Python 3.12 when the cancellation comes
    together with the connection.
    """
    if _cancellations() > before:
        raise asyncio.CancelledError
