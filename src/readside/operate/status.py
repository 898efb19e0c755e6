"""How far everything is: relay, projections, partitions."""

from __future__ import annotations

from typing import Any

import msgspec
from psycopg.rows import namedtuple_row

from readside.adapters.postgres.connection import Connection, opened
from readside.adapters.postgres.installation import check_schema
from readside.adapters.postgres.leases import lasts
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.waiting import longest
from readside.core.errors import SchemaError
from readside.core.lagging import Sample, seconds_behind
from readside.core.position import Position

#: Seconds without a word after which a relay or a projector counts as not running.
_SILENT = 10.0
#: How the state of a relay begins that cannot reach a server.
_RETRYING = "retrying"
#: Rows of the outbox counted at most.
_COUNT = 100_001
#: Seconds after which an open transaction is named, where PostgreSQL keeps more bytes of WAL than this.
_LONG = 60.0
_KEPT = 16 * 1024 * 1024


class RelayStatus(msgspec.Struct):
    """The relay of one app."""

    state: str
    #: Its name, or ``polling`` where there is none.
    slot: str
    #: Whether a relay reads it, or polls.
    slot_active: bool
    #: Bytes of WAL which the relay has not read.
    behind_bytes: int
    #: Bytes of WAL which PostgreSQL keeps for this slot.
    retained_bytes: int
    #: Committed events which the relay has not read, about.
    unread_events: int
    #: Age of the oldest of them.
    unread_seconds: float
    #: The transaction that keeps PostgreSQL from forgetting WAL, if one has been open for long.
    held_up_by: str = ""


class PartitionStatus(msgspec.Struct):
    """One partition of one projection."""

    partition: int
    position: str
    applied: int
    lag_events: int
    #: Age of the oldest unapplied event; None while the projection has never started.
    lag_seconds: float | None
    #: Events a second, lately.
    rate: float
    state: str
    detail: str
    worker: str
    parked_documents: int


class ProjectionStatus(msgspec.Struct):
    """One projection: its partitions, and what is worst and what is most among them."""

    name: str
    state: str
    lag_events: int
    lag_seconds: float | None
    rate: float
    parked_documents: int
    partitions: list[PartitionStatus]


class Status(msgspec.Struct):
    """One app at one moment."""

    app: str
    epoch: int
    relay: RelayStatus
    projections: list[ProjectionStatus]

    @property
    def healthy(self) -> bool:
        """Whether nothing is halted, parked, unstarted or unprotected."""
        good = {"following", "starting", "inline"}
        return self.relay.state == "streaming" and all(
            projection.state in good and not projection.parked_documents
            for projection in self.projections
        )


async def status(dsn: str, app: str) -> Status:
    """Look at one app.

    Raises:
        UnavailableError: PostgreSQL is away.
        SchemaError: the app is not installed.
    """
    async with opened(dsn, "status") as connection:
        connection.row_factory = namedtuple_row
        await check_schema(connection)
        return await _status(connection, app)


async def _rows(connection: Connection, query: str, *values: Any) -> list[Any]:
    return await (await connection.execute(query.encode(), values)).fetchall()


async def _status(connection: Connection, app: str) -> Status:
    found = await _rows(
        connection,
        "SELECT *, (extract(epoch FROM clock_timestamp()) * 1e6)::bigint AS now,"
        " extract(epoch FROM clock_timestamp() - updated_at)::float8 AS silence,"
        " pg_current_wal_flush_lsn() - '0/0'::pg_lsn AS flushed"
        " FROM readside.capture WHERE app = %s",
        app,
    )
    if not found:
        raise SchemaError(f"App {app} is not installed.", mend="run: readside init module:app")
    capture = found[0]
    relay = await _relay(connection, capture)
    rows = await _rows(
        connection,
        "SELECT p.projection, n AS partition, g.position, coalesce(g.nth, 0) AS nth, g.state,"
        " coalesce(g.detail, '') AS detail, coalesce(g.rate, 0) AS rate,"
        f" CASE WHEN {lasts(of='l.')} THEN l.owner END AS owner,"
        " (SELECT count(*) FROM readside.parked_documents d WHERE d.app = p.app"
        "   AND d.projection = p.projection AND d.partition = n) AS parked"
        " FROM readside.projections p CROSS JOIN generate_series(0, %s - 1) n"
        " LEFT JOIN readside.progress g ON g.app = p.app AND g.projection = p.projection"
        "  AND g.partition = n"
        " LEFT JOIN readside.leases l ON l.app = p.app AND l.projection = p.projection"
        "  AND l.partition = n"
        " WHERE p.app = %s ORDER BY 1, 2",
        capture.partitions,
        app,
    )
    by_name: dict[str, list[PartitionStatus]] = {}
    for row in rows:
        by_name.setdefault(row.projection, []).append(_partition(row, capture))
    projections = [_projection(name, parts, relay) for name, parts in by_name.items()]
    projections += [
        ProjectionStatus(name, "inline", 0, 0.0, 0.0, 0, [])
        for name in await _inline(connection, app)
    ]
    return Status(app, capture.epoch, relay, projections)


async def _inline(connection: Connection, app: str) -> list[str]:
    """The projections which are part of the commands' transactions: nothing can be behind there."""
    ((known,),) = await _rows(
        connection, "SELECT to_regclass('readside_store.projections') IS NOT NULL"
    )
    if not known:
        return []
    found = await _rows(
        connection,
        "SELECT projection FROM readside_store.projections WHERE app = %s AND inline ORDER BY 1",
        app,
    )
    return [row.projection for row in found]


async def _relay(connection: Connection, capture: Any) -> RelayStatus:
    slots = await _readers(connection, capture)
    active = bool(slots and slots[0].active)
    state = capture.state
    if not slots:
        state = "slot missing"
    elif slots[0].wal_status == "lost":
        state = "slot lost"
    elif not active and not (state.startswith(_RETRYING) and capture.silence <= _SILENT):
        state = "not running"
    elif capture.silence > _SILENT:
        state = f"silent for {capture.silence:.0f} s"
    unread, oldest = 0, None
    if (
        not active
        or capture.silence > _SILENT
        or capture.flushed - capture.shipped_lsn > 1024 * 1024
    ):
        unread, oldest = await _unread(connection, capture)
    return RelayStatus(
        state,
        "polling" if capture.capture == "polling" else Names(capture.app).slot,
        active,
        max(0, int(capture.flushed) - capture.shipped_lsn) if capture.shipped_lsn else 0,
        int(slots[0].retained) if slots else 0,
        unread,
        round(oldest, 3) if oldest else 0.0,
        await _holder(connection, capture, int(slots[0].retained) if slots else 0),
    )


async def _holder(connection: Connection, capture: Any, retained: int) -> str:
    if capture.capture == "polling" or retained <= _KEPT:
        return ""
    return str(await longest(connection, _LONG) or "")


async def _readers(connection: Connection, capture: Any) -> list[Any]:
    """Whatever captures: the slot, or the poller's lease, which keeps no WAL."""
    if capture.capture == "polling":
        return await _rows(
            connection,
            f"SELECT owner IS NOT NULL AND {lasts()} AS active,"
            # A slot is there as long as it has to tell what came before a change of capture.
            " '' AS wal_status, coalesce((SELECT pg_current_wal_lsn() - restart_lsn"
            "  FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()), 0)"
            "  AS retained FROM readside.pollers p WHERE app = %s"
            " AND EXISTS (SELECT FROM readside.ticks t WHERE t.app = p.app)",
            Names(capture.app).slot,
            capture.app,
        )
    return await _rows(
        connection,
        "SELECT active OR EXISTS (SELECT FROM readside.pollers p WHERE p.app = %s"
        f"  AND p.owner IS NOT NULL AND {lasts(of='p.')}) AS active,"
        " coalesce(wal_status, '') AS wal_status,"
        " pg_current_wal_lsn() - coalesce(restart_lsn, pg_current_wal_lsn()) AS retained"
        " FROM pg_replication_slots WHERE slot_name = %s",
        capture.app,
        Names(capture.app).slot,
    )


async def _unread(connection: Connection, capture: Any) -> tuple[int, float | None]:
    """Count what the relay has not read, and tell the age of the oldest of it in seconds.

    Messages cannot be counted, nor told from what others write: they are as old as they may be.
    """
    (row,) = await _rows(
        connection,
        "SELECT count(*) AS n, extract(epoch FROM clock_timestamp() - min(recorded_at))::float8 AS age"
        " FROM (SELECT recorded_at FROM readside.outbox WHERE app = %s"
        " AND recorded_at > to_timestamp(%s / 1e6) LIMIT %s) AS newest",
        capture.app,
        capture.shipped_at,
        _COUNT,
    )
    if (
        capture.shipped_lsn
        and capture.flushed > capture.shipped_lsn
        and await _rows(
            connection,
            "SELECT FROM readside.messages WHERE app = %s AND ended IS NULL",
            capture.app,
        )
    ):
        # One that retries speaks without shipping: then since the newest event that it has shipped.
        retrying = capture.shipped_at and capture.state.startswith(_RETRYING)
        age = (capture.now - capture.shipped_at) / 1e6 if retrying else capture.silence
        return int(row.n), max(row.age or 0.0, age)
    return int(row.n), row.age


def _partition(row: Any, capture: Any) -> PartitionStatus:
    heads = capture.shipped_heads
    head = heads[row.partition][1] if row.partition < len(heads) else 0
    samples = {
        int(name): [Sample(*pair) for pair in some] for name, some in capture.samples.items()
    }
    behind = max(0, head - row.nth)
    lag: float | None = 0.0
    if row.state in (None, "lost"):
        lag = None
    elif behind:
        shipped_at = capture.shipped_at or capture.now
        lag = round(seconds_behind(samples, row.partition, row.nth, capture.now, shipped_at), 3)
    state = row.state or "never started"
    if row.owner is None and state not in ("lost", "never started"):
        state = "not running"
    return PartitionStatus(
        row.partition,
        str(Position.decode(row.position)) if row.position else "",
        row.nth,
        behind,
        lag,
        row.rate if row.owner else 0.0,
        state,
        row.detail,
        row.owner or "",
        row.parked,
    )


#: From bad to good: the worst partition names the projection's state.
_ORDER = ("lost", "retrying", "healing", "never started", "not running", "starting", "following")


def _projection(name: str, parts: list[PartitionStatus], relay: RelayStatus) -> ProjectionStatus:
    states = {part.state for part in parts}
    worst = next((state for state in _ORDER if state in states), "following")
    lags = [part.lag_seconds for part in parts]
    known = [lag for lag in lags if lag is not None]
    return ProjectionStatus(
        name,
        worst,
        sum(part.lag_events for part in parts) + relay.unread_events,
        max(*known, relay.unread_seconds) if len(known) == len(lags) and known else None,
        round(sum(part.rate for part in parts), 1),
        sum(part.parked_documents for part in parts),
        parts,
    )
