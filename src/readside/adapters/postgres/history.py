"""Whether the history that was shipped goes on in this database, and a new epoch where it does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from psycopg import sql

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.identity import Identity, by_replication, check_writable, identify
from readside.adapters.postgres.installation import begin_ticks
from readside.adapters.postgres.messages import NEVER
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import Session, rows
from readside.adapters.postgres.slots import create_slot, drop_when_free
from readside.adapters.postgres.waiting import Holder, watched
from readside.core.errors import SchemaError, UnavailableError
from readside.core.history import Known, Seen, restarted
from readside.core.position import Position, format_lsn, parse_lsn

log = logging.getLogger("readside.relay")

_EPOCH = "readside epoch "
#: Seconds that a new slot is waited for; less than a session's patience, which could not say why.
_SLOT_PATIENCE = 10.0


class How(NamedTuple):
    """How events are captured."""

    capture: str
    #: Where the other capture had ended; 0 if there never was another.
    cut: int

    @property
    def polls(self) -> bool:
        """Whether it is by polling."""
        return self.capture == "polling"


async def how(connection: Connection, app: str) -> How:
    """Look up how an app was set up.

    Raises:
        SchemaError: it was not.
    """
    found = await rows(
        connection, "SELECT capture, cut_lsn FROM readside.capture WHERE app = %s", [app]
    )
    if not found:
        raise SchemaError(f"App {app} is not installed.", mend="run: readside init module:app")
    return How(*found[0])


async def follow(session: Session, app: str, newest: Position) -> None:
    """Begin a new epoch if the history has restarted.

    Args:
        session: to the write store.
        app: whose history.
        newest: the newest position that was shipped, see core.history.
    """
    async with session.connection() as connection:
        polls = (await how(connection, app)).polls
    streamed = None if polls else await by_replication(session.dsn)
    async with session.connection() as connection:
        await check_writable(connection, polls=polls)
        history = _History(app, session.dsn, await identify(connection, streamed), newest)
        if await history.restarted(connection):
            await history.begin_again(connection, polls=polls)
        await history.keep_timeline(connection)


async def drop_read_slot(connection: Connection, slot: str) -> None:
    """Drop a slot, and end whoever reads it.

    That is this process, which has seen that the history restarted, or one that has not yet.

    Raises:
        UnavailableError: it is read again and again.
    """
    if not await drop_when_free(connection, slot, 20, ends_reader=True):
        raise UnavailableError(f"Slot {slot} is still read.", mend="it is tried again")


class _History:
    """What is asked of one database for one relay that starts."""

    def __init__(self, app: str, dsn: str, identity: Identity, newest: Position) -> None:
        self._app = app
        self._dsn = dsn
        self._identity = identity
        self._newest = newest

    async def keep_timeline(self, connection: Connection) -> None:
        """Note a later timeline, on which the history goes on."""
        timeline = self._identity.timeline
        await rows(
            connection,
            "UPDATE readside.capture SET timeline = %s WHERE app = %s AND timeline < %s",
            [timeline, self._app, timeline],
        )

    async def begin_again(self, connection: Connection, *, polls: bool) -> None:
        """One at a time, and only if it still is so: another relay may have been faster."""
        lock = [_EPOCH + self._app]
        if polls:  # in one transaction: a pooler gives no more
            async with connection.transaction():
                await rows(connection, "SELECT pg_advisory_xact_lock(hashtext(%s))", lock)
                await self._begin_if_restarted(connection)
            return
        await rows(connection, "SELECT pg_advisory_lock(hashtext(%s))", lock)
        try:
            await self._begin_if_restarted(connection)
        finally:
            await rows(connection, "SELECT pg_advisory_unlock(hashtext(%s))", lock)

    async def _begin_if_restarted(self, connection: Connection) -> None:
        reason = await self.restarted(connection)
        if reason:
            await self._begin_epoch(connection, reason)

    async def restarted(self, connection: Connection) -> str:
        """Say why the history does not go on, or return an empty text."""
        # In this order, for an active relay notes first and confirms then, and both only grow:
        # the slot seen before the notes is not ahead of them, the log's end seen after them not behind.
        capture, cut = await how(connection, self._app)
        polls = capture == "polling"
        slot = await self._slot(connection)
        poller = await self._poller(connection)
        known = await self._known(connection)
        crossing = known.confirmed_lsn < cut
        ((flushed,),) = await rows(connection, "SELECT pg_current_wal_flush_lsn()::text")
        exists, confirmed, lost = True, None, ""
        if crossing or not polls:
            exists = slot is not None
            said, status = slot or (None, "")
            confirmed, lost = parse_lsn(said) if said else None, status if status == "lost" else ""
            if crossing and confirmed is not None and not polls:
                confirmed = min(confirmed, known.confirmed_lsn)  # it begins later, at the cut
        last = None
        if crossing or polls:
            exists = exists and poller is not None
            settled_lsn, newest_tick = poller or (0, 0)
            # On the way back to the slot, records beyond the last tick are the slot's.
            last = newest_tick if polls else None
            confirmed = max(
                confirmed or 0, min(settled_lsn, known.confirmed_lsn) if crossing else settled_lsn
            )
        seen = Seen(
            self._identity.system,
            self._identity.timeline,
            self._identity.switches.get(known.timeline),
            parse_lsn(flushed),
            exists,
            confirmed,
            lost,
            last,
        )
        return restarted(known, self._newest, seen)

    async def _poller(self, connection: Connection) -> tuple[int, int] | None:
        """How far polling was settled, and its last tick; None where it was not begun."""
        found = await rows(
            connection,
            "SELECT p.settled_lsn, max(t.lsn) FROM readside.pollers p"
            " JOIN readside.ticks t USING (app) WHERE p.app = %s GROUP BY 1",
            [self._app],
        )
        return (found[0][0], found[0][1]) if found else None

    async def _slot(self, connection: Connection) -> tuple[str | None, str] | None:
        found = await rows(
            connection,
            "SELECT confirmed_flush_lsn::text, wal_status FROM pg_replication_slots"
            " WHERE slot_name = %s AND database = current_database()",
            [Names(self._app).slot],
        )
        return (found[0][0], found[0][1]) if found else None

    async def _known(self, connection: Connection) -> Known:
        (known,) = await rows(
            connection,
            "SELECT epoch, system_identifier, timeline, confirmed_lsn, shipped_lsn"
            " FROM readside.capture WHERE app = %s",
            [self._app],
        )
        return Known(*known)

    async def _begin_epoch(self, connection: Connection, reason: str) -> None:
        capture = (await how(connection, self._app)).capture
        lsn = None
        if capture == "replication":
            # A crash after the slot and before the row is found at the next start: the slot is then
            # ahead of the row, which is a restarted history as well.
            slot = Names(self._app).slot
            await drop_read_slot(connection, slot)
            lsn = await self._make_slot(connection, slot)
        async with connection.transaction():
            await self._hold(connection, capture)
            if lsn is None:
                ((lsn,),) = await rows(
                    connection, "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn - 1)::bigint"
                )
                await self._disown(connection)
                await begin_ticks(connection, self._app, lsn)
            # Another cluster's log may be shorter; the history that begins here holds none of before.
            await rows(
                connection,
                "UPDATE readside.messages SET from_lsn = least(from_lsn, %s)"
                " WHERE app = %s AND from_lsn < %s",
                [lsn, self._app, NEVER],
            )
            ((epoch,),) = await rows(
                connection,
                "UPDATE readside.capture SET epoch = greatest(epoch + 1, %s,"
                " extract(epoch FROM clock_timestamp())::bigint), complete = false,"
                " system_identifier = %s, timeline = %s, cut_lsn = 0,"
                " origin_lsn = %s, confirmed_lsn = %s, confirmed_heads = '[]', shipped_lsn = 0,"
                " shipped_heads = '[]' WHERE app = %s RETURNING epoch",
                [
                    self._newest.epoch + 1,
                    self._identity.system,
                    self._identity.timeline,
                    lsn,
                    lsn,
                    self._app,
                ],
            )
        log.error(
            "history of app %s restarted: %s. Epoch %s begins at %s; what was recorded just before may"
            " be missing, so projections stand still until: readside reset module:app … --give-up",
            self._app, reason, epoch, format_lsn(lsn),
        )  # fmt: skip

    async def _make_slot(self, connection: Connection, slot: str) -> int:
        holders: list[Holder] = []

        def note(found: Sequence[Holder]) -> None:
            holders[:] = found

        try:
            async with (
                asyncio.timeout(_SLOT_PATIENCE),
                watched(connection, self._dsn, note),
            ):
                return await create_slot(connection, slot)
        except TimeoutError as error:
            names = (
                ", ".join(holder.name for holder in holders) or "one that pg_stat_activity shows"
            )
            mends = [*dict.fromkeys(holder.mend for holder in holders), "it is tried again"]
            raise UnavailableError(
                f"A new slot begins when all transactions have ended that were writing: {names}.",
                mend="; ".join(mends),
            ) from error

    async def _hold(self, connection: Connection, capture: str) -> None:
        """Let nobody change the capture until the transaction ends."""
        found = await rows(
            connection,
            "SELECT capture FROM readside.capture WHERE app = %s FOR UPDATE",
            [self._app],
        )
        if found != [(capture,)]:
            raise UnavailableError(
                f"The capture of app {self._app} was changed meanwhile.", mend="it is tried again"
            )

    async def _disown(self, connection: Connection) -> None:
        """Take rows out of polling's sight that a dump brought from a cluster with other transactions.

        Theirs may have the numbers of transactions that run here, or are still to come.
        """
        await connection.execute(
            sql.SQL(
                "UPDATE {} SET xid = '0' WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())"
                " AND NOT pg_visible_in_snapshot(xid, pg_current_snapshot())"
            ).format(sql.Identifier("readside", Names(self._app).branch))
        )
