"""PostgreSQL's replication stream on psycopg's own connection, without a thread or a second driver."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

import psycopg
from psycopg import pq

from readside.adapters.postgres.connection import address, connect, translate
from readside.core.errors import (
    RESTARTS,
    ReadsideError,
    SlotBusyError,
    SlotLostError,
    UnavailableError,
)
from readside.core.pgoutput import feedback
from readside.core.position import format_lsn

log = logging.getLogger("readside.relay")

#: Bytes buffered before reading pauses: TCP then slows the server down.
_ENOUGH = 4 * 1024 * 1024
#: Bytes taken in one turn of the event loop.
_AT_ONCE = 64 * 1024


class ReplicationStream:
    """The frames of one slot, in order, and the feedback to the server.

    psycopg hands `START_REPLICATION` through since 3.3; from there the raw libpq connection
    is read whenever the event loop finds bytes on its socket.
    """

    def __init__(self, dsn: str, slot: str, publication: str) -> None:
        self._dsn = dsn
        self._slot = slot
        self._publication = publication
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._frames: deque[bytes] = deque()
        self._buffered = 0
        #: Bytes of the frames that were handed out last.
        self.handed_out = 0
        # Remembered, because libpq has no descriptor to tell of once the connection is lost.
        self._watched: int | None = None
        self._arrived = asyncio.Event()
        self._failure: ReadsideError | None = None

    async def start(self, lsn: int) -> None:
        """Begin to stream from `lsn`.

        Raises:
            SlotBusyError, SlotLostError, UnavailableError, RefusedError: see ports.source.
        """
        self._connection = await connect(
            self._dsn, "relay", replication="database", options="-c wal_sender_timeout=10s"
        )
        command = (
            f'START_REPLICATION SLOT "{self._slot}" LOGICAL {format_lsn(lsn)} '
            f"(proto_version '2', publication_names '\"{self._publication}\"', messages 'true')"
        )
        try:
            await self._connection.execute(command.encode())
        except psycopg.Error as error:
            await self.close()
            raise _start_error(error, self._slot, self._dsn) from error
        if self._connection.pgconn.transaction_status != pq.TransactionStatus.ACTIVE:
            await self.close()
            raise UnavailableError(f"{address(self._dsn)} did not start to stream.")
        self._resume()

    async def frames(self, patience: float) -> deque[bytes]:
        """Wait at most `patience` seconds for frames, and take all that are there.

        Raises:
            UnavailableError: the stream has ended.
        """
        if not self._frames and self._failure is None and patience > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        if not self._frames and self._failure is not None:
            raise self._failure
        taken = self._hand_out()
        if self._failure is None:
            self._resume()
        return taken

    def more(self) -> deque[bytes]:
        """Frames that have come meanwhile, without waiting for any."""
        if not self._frames and self._watched is not None:
            self._readable()
        return self._hand_out()

    def _hand_out(self) -> deque[bytes]:
        taken, self.handed_out = self._frames, self._buffered
        self._frames, self._buffered = deque(), 0
        return taken

    def confirm(self, lsn: int) -> None:
        """Tell the server that everything before `lsn` may go; also keeps the connection alive.

        Raises:
            UnavailableError: the connection is broken.
        """
        if self._connection is None or self._failure is not None:
            return
        try:
            pgconn = self._connection.pgconn
            pgconn.put_copy_data(feedback(lsn, time.time_ns() // 1000))
            pgconn.flush()
        except psycopg.Error as error:
            raise translate(error, address(self._dsn)) from error

    async def close(self) -> None:
        """End the stream; the server lets go of the slot when it notices."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._pause()
        try:
            await connection.close()
        except psycopg.Error as error:
            log.debug("closing the stream: %r", error)

    def _resume(self) -> None:
        if self._watched is None and self._connection is not None:
            try:
                self._watched = self._connection.fileno()
            except psycopg.Error as error:
                self._fail(error)
                return
            asyncio.get_running_loop().add_reader(self._watched, self._readable)
            self._drain()  # libpq may hold bytes that the socket does not show any more

    def _pause(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched)

    def _readable(self) -> None:
        if self._connection is None:
            return
        consume = self._connection.pgconn.consume_input
        until = min(self._buffered + _AT_ONCE, _ENOUGH)
        before = -1
        # libpq takes 16 kB at a time: batches would stay that small however much has come.
        while self._watched is not None and before < self._buffered < until:
            before = self._buffered
            try:
                consume()
            except psycopg.Error as error:
                self._fail(error)
                return
            self._drain()

    def _drain(self) -> None:
        if self._connection is None:
            return
        get, frames = self._connection.pgconn.get_copy_data, self._frames
        try:
            while self._buffered < _ENOUGH:
                size, data = get(1)
                if size > 0:
                    frames.append(bytes(data))
                    self._buffered += size
                elif size == 0:
                    break
                else:
                    self._end()
                    return
        except psycopg.Error as error:
            self._fail(error)
            return
        if self._buffered >= _ENOUGH:
            self._pause()
        if frames:
            self._arrived.set()

    def _end(self) -> None:
        if self._connection is None:
            return
        result = self._connection.pgconn.get_result()
        text = result.error_message.decode(errors="replace") if result else ""
        self._fail(psycopg.OperationalError(text.strip() or "the stream has ended"))

    def _fail(self, error: psycopg.Error) -> None:
        self._pause()
        self._failure = _start_error(error, self._slot, self._dsn)
        self._arrived.set()


_LOST = ("can no longer", "has been invalidated", "requested WAL segment", "cannot be synchronized")


def _start_error(error: psycopg.Error, slot: str, dsn: str) -> ReadsideError:
    text = " ".join(str(error).split())
    if "is active for PID" in text:
        return SlotBusyError(
            f"Slot {slot}: {text}", mend="nothing, if another relay runs: this one is its standby"
        )
    if any(part in text for part in _LOST) or f'slot "{slot}" does not exist' in text:
        return SlotLostError(f"{address(dsn)}: {text}", mend=RESTARTS)
    return translate(error, address(dsn))
