"""readside's notes about capture and progress, in the write store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg import sql

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.installation import (
    begin_ticks,
    check_level,
    check_schema,
    create_slot,
    drop_slot,
)
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import Session, rows
from readside.core.chain import Head
from readside.core.errors import RefusedError, SchemaError
from readside.core.history import Known, Seen, restarted
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position, format_lsn, parse_lsn, settled
from readside.core.settling import Bookmark
from readside.ports.ledger import Capture, Progress, Rewind, Shipped, Survey

log = logging.getLogger("readside.relay")

_EPOCH = "readside epoch "
#: Behind the end of every log.
_END = 2**63 - 1


def heads_json(heads: Sequence[Head]) -> str:
    """Write heads for a jsonb column."""
    return msgspec.json.encode([(head.position.encode(), head.nth) for head in heads]).decode()


def heads_of(value: Any, partitions: int, origin: Position) -> tuple[Head, ...]:
    """Read heads from a jsonb column; an empty list means the origin everywhere."""
    found = [Head(Position.decode(text), nth) for text, nth in value]
    return tuple(found) if found else tuple(Head(origin, 0) for _ in range(partitions))


class Identity(NamedTuple):
    """Which database answers, and on which timeline."""

    system: str
    timeline: int
    #: Where the log left each earlier timeline.
    switches: Mapping[int, int]


def _switches(history: bytes | str) -> dict[int, int]:
    """Read a timeline history file: parent timeline, switch point and reason in each line."""
    found = {}
    text = history if isinstance(history, str) else bytes(history).decode(errors="replace")
    for line in text.splitlines():
        words = line.split("#")[0].split(None, 2)
        if len(words) >= 2:  # noqa: PLR2004 - the reason may be empty
            found[int(words[0])] = parse_lsn(words[1])
    return found


class PostgresLedger:
    """The relay's and the projectors' notes of one app.

    Args:
        session: to the write store.
        app: whose notes.
        alone: the app has no projection which follows the log, so that nothing is kept for one
            that never started.
    """

    def __init__(self, session: Session, app: str, *, alone: bool = False) -> None:
        self._alone = alone
        self._session = session
        self._app = app

    async def capture(self, app: str, newest: Position = BEGINNING) -> Capture:
        """See ports.ledger; begins a new epoch where the history has restarted."""
        self._app = app
        async with self._session.connection() as connection:
            polls, _ = await self._how(connection)
        identity = await self._identify(polls=polls)
        async with self._session.connection() as connection:
            await _check_writable(connection, polls=polls)
            if await self._restarted(connection, identity, newest):
                await self._begin_again(connection, identity, newest, polls=polls)
            await rows(
                connection,
                "UPDATE readside.capture SET timeline = %s WHERE app = %s AND timeline < %s",
                [identity.timeline, app, identity.timeline],
            )
        return await self._capture()

    async def _begin_again(
        self, connection: Connection, identity: Identity, newest: Position, *, polls: bool
    ) -> None:
        """One at a time, and only if it still is so: another relay may have been faster."""
        lock = [_EPOCH + self._app]
        if polls:  # in one transaction: a pooler gives no more
            async with connection.transaction():
                await rows(connection, "SELECT pg_advisory_xact_lock(hashtext(%s))", lock)
                reason = await self._restarted(connection, identity, newest)
                if reason:
                    await self._begin_epoch(connection, identity, newest, reason)
            return
        await rows(connection, "SELECT pg_advisory_lock(hashtext(%s))", lock)
        try:
            reason = await self._restarted(connection, identity, newest)
            if reason:
                await self._begin_epoch(connection, identity, newest, reason)
        finally:
            await rows(connection, "SELECT pg_advisory_unlock(hashtext(%s))", lock)

    async def _restarted(self, connection: Connection, identity: Identity, newest: Position) -> str:
        # In this order, for an active relay notes first and confirms then, and both only grow:
        # the slot seen before the notes is not ahead of them, the log's end seen after them not behind.
        polls, cut = await self._how(connection)
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
            identity.system,
            identity.timeline,
            identity.switches.get(known.timeline),
            parse_lsn(flushed),
            exists,
            confirmed,
            lost,
            last,
        )
        return restarted(known, newest, seen)

    async def _how(self, connection: Connection) -> tuple[bool, int]:
        """Whether polling captures, and where the other capture had ended."""
        found = await rows(
            connection,
            "SELECT capture = 'polling', cut_lsn FROM readside.capture WHERE app = %s",
            [self._app],
        )
        if not found:
            raise SchemaError(
                f"App {self._app} is not installed.", mend="run: readside init module:app"
            )
        return bool(found[0][0]), int(found[0][1])

    async def _poller(self, connection: Connection) -> tuple[int, int] | None:
        """How far polling was settled, and its last tick; None where it was not begun."""
        found = await rows(
            connection,
            "SELECT p.settled_lsn, max(t.lsn) FROM readside.pollers p"
            " JOIN readside.ticks t USING (app) WHERE p.app = %s GROUP BY 1",
            [self._app],
        )
        return (found[0][0], found[0][1]) if found else None

    async def _identify(self, *, polls: bool) -> Identity:
        if polls:
            # As a plain user may. Where the log has left a timeline is not told to such a one.
            ((system, timeline),) = await self._session.query(
                "SELECT system_identifier::text, CASE WHEN pg_is_in_recovery() THEN 0 ELSE"
                " ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END"
                " FROM pg_control_system()"
            )
            return Identity(system, timeline, {})
        async with opened(self._session.dsn, "relay", replication="database") as connection:
            ((system, timeline, *_),) = await rows(connection, "IDENTIFY_SYSTEM")
            history = b""
            if int(timeline) > 1:  # the first has no file
                ((_, history),) = await rows(connection, f"TIMELINE_HISTORY {int(timeline)}")
        return Identity(str(system), int(timeline), _switches(history))

    async def _known(self, connection: Connection) -> Known:
        found = await rows(
            connection,
            "SELECT epoch, system_identifier, timeline, confirmed_lsn, shipped_lsn"
            " FROM readside.capture WHERE app = %s",
            [self._app],
        )
        if not found:
            raise SchemaError(
                f"App {self._app} is not installed.", mend="run: readside init module:app"
            )
        return Known(*found[0])

    async def _slot(self, connection: Connection) -> tuple[str | None, str] | None:
        found = await rows(
            connection,
            "SELECT confirmed_flush_lsn::text, wal_status FROM pg_replication_slots"
            " WHERE slot_name = %s AND database = current_database()",
            [Names(self._app).slot],
        )
        return (found[0][0], found[0][1]) if found else None

    async def _begin_epoch(
        self, connection: Connection, identity: Identity, newest: Position, reason: str
    ) -> None:
        polls, _ = await self._how(connection)
        if polls:
            ((lsn,),) = await rows(
                connection, "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn - 1)::bigint"
            )
        else:
            # A crash after the slot and before the row is found at the next start: the slot is then
            # ahead of the row, which is a restarted history as well.
            slot = Names(self._app).slot
            await drop_slot(connection, slot)
            lsn = await create_slot(connection, slot)
        async with connection.transaction():
            if polls:
                await begin_ticks(connection, self._app, lsn)
                await self._disown(connection)
            # Another cluster's log may be shorter; the history that begins here holds none of before.
            await rows(
                connection,
                "UPDATE readside.messages SET from_lsn = least(from_lsn, %s)"
                " WHERE app = %s AND from_lsn < %s",
                [lsn, self._app, _END],
            )
            ((epoch,),) = await rows(
                connection,
                "UPDATE readside.capture SET epoch = greatest(epoch + 1, %s,"
                " extract(epoch FROM clock_timestamp())::bigint), complete = false,"
                " system_identifier = %s, timeline = %s, cut_lsn = 0,"
                " origin_lsn = %s, confirmed_lsn = %s, confirmed_heads = '[]', shipped_lsn = 0,"
                " shipped_heads = '[]' WHERE app = %s RETURNING epoch",
                [newest.epoch + 1, identity.system, identity.timeline, lsn, lsn, self._app],
            )
        log.error(
            "history of app %s restarted: %s. Epoch %s begins at %s; what was recorded just before may"
            " be missing, so projections stand still until: readside reset module:app … --give-up",
            self._app, reason, epoch, format_lsn(lsn),
        )  # fmt: skip

    async def _disown(self, connection: Connection) -> None:
        """Take rows out of polling's sight that a dump brought from a cluster which had counted further."""
        await connection.execute(
            sql.SQL(
                "UPDATE {} SET xid = '0' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
            ).format(sql.Identifier("readside", Names(self._app).branch))
        )

    async def _capture(self) -> Capture:
        found = await self._session.query(
            "SELECT epoch, complete, origin_lsn, partitions, confirmed_lsn, confirmed_heads"
            " FROM readside.capture WHERE app = %s",
            [self._app],
        )
        if not found:
            raise SchemaError(
                f"App {self._app} is not installed.", mend="run: readside init module:app"
            )
        epoch, complete, origin_lsn, partitions, lsn, heads = found[0]
        origin = settled(epoch, origin_lsn)
        return Capture(
            epoch, complete, origin, partitions, Bookmark(lsn, heads_of(heads, partitions, origin))
        )

    async def confirm(self, bookmark: Bookmark) -> None:
        """See ports.ledger."""
        await self._session.query(
            # Never back, and never into another history: a relay may wake up late.
            "UPDATE readside.capture SET confirmed_lsn = %s, confirmed_heads = %s"
            " WHERE app = %s AND epoch = %s AND confirmed_lsn <= %s",
            [
                bookmark.lsn,
                heads_json(bookmark.heads),
                self._app,
                bookmark.heads[0].position.epoch,
                bookmark.lsn,
            ],
        )

    async def ship(self, shipped: Shipped) -> None:
        """See ports.ledger."""
        samples = {str(number): some for number, some in shipped.samples.items()}
        shipped_at = max((some[-1].recorded_at for some in shipped.samples.values()), default=0)
        await self._session.query(
            "UPDATE readside.capture SET shipped_lsn = %s, shipped_heads = %s, samples = %s,"
            " shipped_at = greatest(shipped_at, %s), state = %s, updated_at = clock_timestamp()"
            " WHERE app = %s AND epoch = %s",
            [
                shipped.lsn,
                heads_json(shipped.heads),
                msgspec.json.encode(samples).decode(),
                shipped_at,
                shipped.state,
                self._app,
                shipped.heads[0].position.epoch,
            ],
        )

    async def tell(self, state: str) -> None:
        """See ports.ledger."""
        await self._session.query(
            # Not where another relay ships: this one may be a standby.
            "UPDATE readside.capture SET state = %s, updated_at = clock_timestamp() WHERE app = %s"
            " AND (state LIKE 'retrying%%' OR updated_at < clock_timestamp() - interval '2 seconds')",
            [state, self._app],
        )

    async def survey(self) -> Survey:
        """See ports.ledger."""
        async with self._session.connection() as connection:
            ((lowest, kept, units, epoch),) = await rows(
                connection,
                # Nothing is kept back for what is lost: it cannot be healed from here any more.
                "SELECT min(coalesce(g.durable, ''))"
                " FILTER (WHERE coalesce(g.state, '') <> 'lost'),"
                " count(*) FILTER (WHERE coalesce(g.state, '') <> 'lost'), count(*), max(c.epoch)"
                " FROM readside.capture c"
                " JOIN readside.projections p USING (app)"
                " CROSS JOIN generate_series(0, c.partitions - 1) n"
                " LEFT JOIN readside.progress g ON g.app = p.app AND g.projection = p.projection"
                " AND g.partition = n WHERE c.app = %s",
                [self._app],
            )
            if self._alone and not units:
                ((epoch,),) = await rows(
                    connection, "SELECT epoch FROM readside.capture WHERE app = %s", [self._app]
                )
            wishes = await rows(
                connection,
                "SELECT projection, partition, after FROM readside.rewinds"
                " WHERE app = %s AND reachable IS NULL",
                [self._app],
            )
        rewinds = tuple(
            Rewind(Unit(name, number), Position.decode(after)) for name, number, after in wishes
        )
        if not kept and (units or self._alone):
            return Survey(Position(epoch, _END, 0), rewinds)
        return Survey(Position.decode(lowest) if lowest else None, rewinds)

    async def answer(self, rewind: Rewind, *, reachable: bool) -> None:
        """See ports.ledger."""
        await self._session.query(
            "UPDATE readside.rewinds SET reachable = %s"
            " WHERE app = %s AND projection = %s AND partition = %s AND after = %s",
            [reachable, self._app, *rewind.unit, rewind.after.encode()],
        )

    async def register(self, app: str, projections: Sequence[str]) -> Capture:
        """See ports.ledger."""
        self._app = app
        async with self._session.connection() as connection:
            await check_schema(connection)
        if projections:
            await self._session.query(
                "INSERT INTO readside.projections (app, projection) SELECT %s, unnest(%s::text[])"
                " ON CONFLICT DO NOTHING",
                [app, list(projections)],
            )
        return await self._capture()

    async def others(self, projections: Sequence[str]) -> list[str]:
        """Projections which readside still keeps WAL for, though they are not among these."""
        found = await self._session.query(
            "SELECT projection FROM readside.projections"
            " WHERE app = %s AND NOT projection = ANY(%s) ORDER BY 1",
            [self._app, list(projections)],
        )
        return [row[0] for row in found]

    async def captures(self) -> str:
        """How events leave PostgreSQL: the setting `capture` as it was installed."""
        async with self._session.connection() as connection:
            polls, _ = await self._how(connection)
        return "polling" if polls else "replication"

    async def history(self) -> Capture:
        """See ports.ledger."""
        return await self._capture()

    async def report(self, progress: Sequence[Progress]) -> None:
        """See ports.ledger."""
        if not progress:
            return
        columns = [
            [row.unit.projection for row in progress],
            [row.unit.partition for row in progress],
            [row.position.encode() for row in progress],
            [row.durable.encode() if row.durable else None for row in progress],
            [row.nth for row in progress],
            [row.state for row in progress],
            [row.detail for row in progress],
            [row.rate for row in progress],
            [row.token for row in progress],
        ]
        await self._session.query(
            "INSERT INTO readside.progress AS p (app, projection, partition, position, durable, nth,"
            " state, detail, rate, token) SELECT %s, * FROM unnest(%s::text[], %s::int[],"
            " %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::float8[], %s::bigint[])"
            " ON CONFLICT (app, projection, partition) DO UPDATE SET position = excluded.position,"
            # A new owner does not know yet; a store that went back takes it back, too.
            " durable = CASE WHEN coalesce(excluded.durable, p.durable) > excluded.position"
            " THEN excluded.position ELSE coalesce(excluded.durable, p.durable) END,"
            " nth = excluded.nth, state = excluded.state, detail = excluded.detail,"
            " rate = excluded.rate, token = excluded.token, updated_at = clock_timestamp()"
            " WHERE p.token <= excluded.token",
            [self._app, *columns],
        )

    async def wish(self, rewind: Rewind) -> None:
        """See ports.ledger."""
        await self._session.query(
            "INSERT INTO readside.rewinds AS r (app, projection, partition, after)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT (app, projection, partition)"
            " DO UPDATE SET after = excluded.after, reachable = NULL, asked_at = clock_timestamp()",
            [self._app, *rewind.unit, rewind.after.encode()],
        )

    async def unreachable(self, unit: Unit) -> bool:
        """See ports.ledger."""
        found = await self._session.query(
            "SELECT reachable FROM readside.rewinds"
            " WHERE app = %s AND projection = %s AND partition = %s",
            [self._app, *unit],
        )
        return found == [(False,)]

    async def flushed(self) -> int:
        """See ports.ledger."""
        ((lsn,),) = await self._session.query("SELECT pg_current_wal_flush_lsn()::text")
        return parse_lsn(lsn)

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()


async def _check_writable(connection: Connection, *, polls: bool) -> None:
    ((standby, level, commits, isolation),) = await rows(
        connection,
        "SELECT pg_is_in_recovery(), current_setting('wal_level'),"
        " current_setting('synchronous_commit'), current_setting('default_transaction_isolation')",
    )
    if standby:
        raise RefusedError(
            "PostgreSQL is a standby.", mend="let READSIDE_WRITE_STORE name the primary"
        )
    if not polls:
        check_level(level)
    elif commits == "off":
        # Through a pooler it cannot be set for these connections alone.
        raise RefusedError(
            f"User {connection.info.user} has synchronous_commit = off.",
            mend=f"ALTER ROLE {connection.info.user} SET synchronous_commit = on, for readside's user",
        )
    elif isolation != "read committed":
        # A tick's snapshot would be older than its place in the log.
        raise RefusedError(
            f"User {connection.info.user} has default_transaction_isolation = {isolation}.",
            mend=f"ALTER ROLE {connection.info.user} SET default_transaction_isolation ="
            " 'read committed', for readside's user",
        )
