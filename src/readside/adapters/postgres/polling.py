"""The outbox as a source: its rows by polling, for where logical replication cannot be had."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, NamedTuple, TypeVar
from uuid import uuid4

import psycopg
from psycopg import sql

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.leases import lasts
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import PATIENCE, Session, rows
from readside.core.errors import (
    RESTARTS,
    ReadsideError,
    SlotBusyError,
    SlotLostError,
    UnavailableError,
)
from readside.core.position import Position, format_lsn
from readside.core.record import Captured
from readside.core.ticking import Batch, Pace, Snapshot, between
from readside.ports.ending import end
from readside.ports.source import Chunk, SourceTraits
from readside.ports.traits import Promise

log = logging.getLogger("readside.relay")

_T = TypeVar("_T")

#: Events in one chunk, and their bytes, about; a large batch comes in several.
_CHUNK = 4000
_BYTES = 8 * 1024 * 1024
#: Looks in a row at which the server has nothing to do for us, before its answer counts as lost.
_IDLE = 3
#: Rows fetched first, when it is not known how large they are: they may all be of the largest.
_FIRST = 20

_COLUMNS = (
    "id::text, type, aggregateid, version, payload::text, coalesce(headers::text, ''),"
    " (extract(epoch FROM recorded_at) * 1000000)::bigint"
)
_READ = (
    "DECLARE batch NO SCROLL CURSOR FOR"
    f" SELECT {_COLUMNS}, seq FROM {{table}} WHERE xid >= {{first}}::xid8 AND xid < {{end}}::xid8"
    " AND NOT xid = ANY({without}::xid8[])"
    f" UNION ALL SELECT {_COLUMNS}, seq FROM {{table}} WHERE xid = ANY({{late}}::xid8[])"
    " ORDER BY seq, id"  # whatever somebody has written into seq, the order is always the same
)
#: Each transaction in one go, as far as it goes: a pooler keeps nothing in between, not even the level.
_TICK = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT * FROM readside.tick({}, {}, {}, {}); COMMIT"
_PID = (
    "BEGIN ISOLATION LEVEL READ COMMITTED;"
    # The relay may wait for the broker between two chunks, and a sort may take long.
    " SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0;"
    " SET LOCAL enable_seqscan = off;"  # as in readside.tick
    " SELECT pg_backend_pid()"
)
#: The second question comes after the outbox is locked by the first: from now on no row goes, and as long
#: as the tick is there, none of this batch has gone.
_OPEN = "{}; SELECT 1 FROM readside.ticks WHERE app = {} AND lsn = {}"
_TAKEN_OVER = "RS001"
_GONE = "RS002"


class Tick(NamedTuple):
    """A durable note of a snapshot."""

    lsn: int
    snapshot: Snapshot


def batch_query(app: str, batch: Batch) -> sql.Composed:
    """The statement that opens a cursor over a batch's rows, in their order."""
    return sql.SQL(_READ).format(
        table=sql.Identifier("readside", Names(app).branch),
        first=sql.Literal(str(batch.first)),
        end=sql.Literal(str(batch.end)),
        without=sql.Literal(_array(batch.without)),
        late=sql.Literal(_array(batch.late)),
    )


def _array(xids: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, xids)) + "}"


class PollingSource:
    """The committed events of one app, tick by tick.

    An event's position is (epoch, LSN of the tick before its batch, place in the batch). Both ticks
    are durable, and so are the rows until they are settled: whoever reads a batch again, reads the same.

    Needs no session: each statement or transaction may meet another connection of a pooler.

    Args:
        ttl: seconds after which the lease of a silent poller runs out.
        until: end at this tick, which hands over to another capture.
        patience: seconds after which a silent server counts as away.
    """

    #: Two transactions in one batch come in the order of their rows, which is that of row locks.
    traits: ClassVar[SourceTraits] = SourceTraits(keeps_commit_order=Promise.NEVER)

    def __init__(
        self,
        dsn: str,
        app: str,
        epoch: int,
        *,
        ttl: float = 5.0,
        until: int | None = None,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._epoch = epoch
        self._ttl = ttl
        self._until = until
        self._clock = clock
        self._owner = f"poller-{uuid4().hex[:12]}"
        self._reading = Session(dsn, "poller", plain=True, patience=patience)
        self._tending = Session(dsn, "poller's lease", plain=True, patience=patience)
        self._look_every = min(patience, ttl) / 3
        self._token = 0
        self._base = Tick(0, Snapshot(0, 0, frozenset()))
        self._pace = Pace()
        #: The tick whose batch is being read, and how many of its rows were handed out.
        self._next: Tick | None = None
        self._out = 0
        self._open = False
        self._pid = 0
        self._settled = 0
        self._renewed_at = 0.0

    @property
    def finished(self) -> bool:
        """Whether everything before `until` was handed out."""
        return self._base.lsn == self._until

    async def start(self, lsn: int) -> None:
        """See ports.source."""
        await self.close()
        self._token = await self._elect()
        found = await self._tending.query(
            "SELECT t.lsn, t.snapshot::text, t.lsn <= p.settled_lsn FROM readside.ticks t"
            " JOIN readside.pollers p USING (app) WHERE app = %s AND t.lsn >= %s ORDER BY 1 LIMIT 1",
            [self._app, lsn],
        )
        # Where more was settled, it goes on there, as a slot does. But what is between two ticks that are
        # still needed is nobody's place: the later one has seen what is to come, and of the earlier one
        # the positions are below what the relay takes for told.
        if not found or not (found[0][0] == lsn or found[0][2]):
            await self.close()
            raise SlotLostError(f"App {self._app} has no tick at {format_lsn(lsn)}.", mend=RESTARTS)
        self._base = Tick(found[0][0], Snapshot.parse(found[0][1]))
        self._pace, self._next, self._out, self._settled = Pace(), None, 0, 0

    async def _elect(self) -> int:
        found = await self._tending.query(
            "UPDATE readside.pollers SET owner = %s, token = token + 1,"
            " expires_at = clock_timestamp() + make_interval(secs => %s) WHERE app = %s"
            f" AND (owner IS NULL OR NOT {lasts()}) RETURNING token",
            [self._owner, self._ttl, self._app],
        )
        if found:
            self._renewed_at = self._clock()
            return int(found[0][0])
        if await self._tending.query("SELECT 1 FROM readside.pollers WHERE app = %s", [self._app]):
            raise SlotBusyError(
                f"Another relay polls the outbox of {self._app}.",
                mend="nothing: this one is its standby",
            )
        raise SlotLostError(
            f"App {self._app} is not set up for polling.", mend="run: readside init module:app"
        )

    async def read(self, patience: float) -> Chunk:
        """See ports.source."""
        if not self._token:
            raise RuntimeError("start() first")
        deadline = self._clock() + patience
        while self._next is None:
            if self.finished:
                return Chunk([], self._base.lsn)
            found = await self._tick()
            if found is None:
                left = deadline - self._clock()
                if left <= 0:
                    return Chunk([], self._base.lsn)
                await asyncio.sleep(min(self._pace.pause(), left))
                continue
            tick, busy = found
            self._pace.ticked(self._clock(), events=busy)
            if busy:
                self._next, self._out = tick, 0
            else:
                self._base = tick
                return Chunk([], tick.lsn)
        return await self._batch(self._next)

    async def _tick(self) -> tuple[Tick, bool] | None:
        """The next tick and whether its batch has rows; None while there is none."""
        statement = sql.SQL(_TICK).format(
            self._app, self._base.lsn, self._token, self._pace.due(self._clock())
        )
        async with self._reading.connection() as connection:
            try:
                cursor = await connection.execute(statement)
                cursor.nextset()
                found = await cursor.fetchall()
            except psycopg.Error as error:
                await connection.close()  # with its transaction
                raise _ruling(error, self._app) from error
        if not found:
            return None
        ((lsn, snapshot, busy),) = found
        return Tick(lsn, Snapshot.parse(snapshot)), busy

    async def _batch(self, tick: Tick) -> Chunk:
        """Hand out the next rows of the batch that `tick` closes."""
        async with self._reading.connection(watched=True) as connection:
            try:
                if not self._open:
                    await self._begin(connection, tick)
                found, whole = await self._watched(_fetch(connection))
                if whole:
                    await connection.execute(b"COMMIT")
                self._open = not whole
            except BaseException:
                self._open = False
                await connection.close()  # with its transaction; whoever reads on begins anew
                raise
        # Nothing is awaited from here on: whoever is interrupted has been given nothing.
        base, first = self._base.lsn, self._out + 1
        self._out += len(found)
        if whole:
            self._base, self._next = tick, None
        return Chunk(
            [self._event(base, n, row) for n, row in enumerate(found, first)], self._base.lsn
        )

    async def _begin(self, connection: Connection, tick: Tick) -> None:
        self._pid = 0
        ((self._pid,),) = await self._watched(_last(connection, sql.SQL(_PID)))
        batch = batch_query(self._app, between(self._base.snapshot, tick.snapshot))
        statement = sql.SQL(_OPEN).format(batch, self._app, self._base.lsn)
        if not await self._watched(_last(connection, statement)):
            raise SlotLostError(
                f"App {self._app}: the tick at {format_lsn(self._base.lsn)} is gone.", mend=RESTARTS
            )
        if self._out:
            move = sql.SQL("MOVE FORWARD {} IN batch").format(self._out)
            await self._watched(connection.execute(move))

    async def _watched(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Let a statement take its time: millions of rows are not sorted in a few seconds.

        Meanwhile the lease is kept, and the server asked whether it is still at it; a server that has
        stopped does not answer that, either.
        """
        task = asyncio.ensure_future(work)
        idle = 0
        try:
            while not (await asyncio.wait({task}, timeout=self._look_every))[0]:
                await self.settle(self._settled)
                idle = 0 if await self._works() else idle + 1
                if idle > _IDLE:
                    raise UnavailableError(
                        "PostgreSQL has nothing to do for a poller that waits for an answer.",
                        mend="it is tried again; look for what swallows packets in between",
                    )
            return task.result()
        finally:
            await end((task,))

    async def _works(self) -> bool:
        """Whether the server process that reads a batch is at work, or has not said who it is."""
        if not self._pid:
            return True
        found = await self._tending.query(
            "SELECT coalesce(state, 'active') = 'active' FROM pg_stat_activity WHERE pid = %s",
            [self._pid],
        )
        return found == [(True,)]

    def _event(self, lsn: int, ordinal: int, row: tuple[Any, ...]) -> Captured:
        id_, type_, key, version, payload, headers, recorded_at, _ = row
        return Captured(
            Position(self._epoch, lsn, ordinal),
            id_,
            type_,
            key,
            version,
            payload.encode(),
            recorded_at,
            headers.encode(),
        )

    async def settle(self, lsn: int) -> None:
        """See ports.source; also keeps the lease."""
        if not self._token:
            raise RuntimeError("start() first")
        if lsn <= self._settled and self._clock() - self._renewed_at < self._ttl / 3:
            return
        found = await self._tending.query(
            "UPDATE readside.pollers SET settled_lsn = greatest(settled_lsn, %s),"
            " expires_at = clock_timestamp() + make_interval(secs => %s)"
            " WHERE app = %s AND token = %s RETURNING settled_lsn",
            [lsn, self._ttl, self._app, self._token],
        )
        if not found:
            raise SlotBusyError(f"Another relay polls the outbox of {self._app}.")
        self._renewed_at = self._clock()
        if lsn > self._settled:
            # From where the last one has ended, for a long transaction keeps what is deleted in the index.
            await self._tending.query(
                "DELETE FROM readside.ticks WHERE app = %s AND lsn >= %s AND lsn <"
                " (SELECT max(lsn) FROM readside.ticks WHERE app = %s AND lsn <= %s)",
                [self._app, self._settled, self._app, lsn],
            )
            self._settled = lsn

    def retains(self, lsn: int) -> int | None:
        """See ports.source."""
        del lsn
        return None  # it keeps rows

    async def close(self) -> None:
        """See ports.source."""
        token, self._token = self._token, 0
        self._open, self._next = False, None
        await self._reading.close()
        try:
            if token:
                await self._tending.query(
                    "UPDATE readside.pollers SET owner = NULL WHERE app = %s AND token = %s",
                    [self._app, token],
                )
        except ReadsideError as error:
            log.debug("the lease runs out by itself: %r", error)
        await self._tending.close()


async def _last(
    connection: Connection, statements: sql.SQL | sql.Composed
) -> list[tuple[Any, ...]]:
    """Run several statements at once, and return the last one's rows."""
    cursor = await connection.execute(statements)
    while cursor.nextset():
        pass
    return await cursor.fetchall()


async def _fetch(connection: Connection) -> tuple[list[tuple[Any, ...]], bool]:
    """The cursor's next rows, bounded in number and bytes, and whether they were its last."""
    found: list[tuple[Any, ...]] = []
    size, want = 0, _FIRST
    while len(found) < _CHUNK and size < _BYTES:
        part = await rows(connection, f"FETCH {want} FROM batch")
        found += part
        if len(part) < want:
            return found, True
        size += sum(len(row[4]) for row in part)
        want = max(1, min(_CHUNK - len(found), (_BYTES - size) * len(found) // max(1, size)))
    return found, False


def _ruling(error: psycopg.Error, app: str) -> Exception:
    if error.sqlstate == _TAKEN_OVER:
        return SlotBusyError(f"Another relay polls the outbox of {app}.")
    if error.sqlstate == _GONE:
        return SlotLostError(f"App {app}: {error.diag.message_primary}.", mend=RESTARTS)
    return error
