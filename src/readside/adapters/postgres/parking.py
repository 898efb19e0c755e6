"""Parked documents and their events, durably, in the write store."""

from __future__ import annotations

import datetime as dt
import traceback
from collections.abc import Mapping, Sequence

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.session import Session, rows
from readside.core.errors import LeaseLostError
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.record import Record
from readside.ports.ledger import PAGE, PAGE_BYTES, Hold, Parked, Waiting

_LONGEST = 16_000


class PostgresParking:
    """Documents of one app which cannot move on."""

    def __init__(self, session: Session, app: str) -> None:
        self._session = session
        self._app = app

    async def parked(self, unit: Unit) -> Mapping[str, Hold]:
        """See ports.ledger."""
        found = await self._session.query(
            "SELECT key, parking, since FROM readside.parked_documents"
            " WHERE app = %s AND projection = %s AND partition = %s",
            [self._app, *unit],
        )
        return _holds(found)

    async def park(
        self, unit: Unit, steps: Sequence[Parked], token: int | None = None
    ) -> Mapping[str, Hold]:
        """See ports.ledger."""
        async with self._session.transaction() as connection:
            if token is not None:
                await self._fence(connection, unit, token)
            for parked in steps:
                if parked.error is not None:
                    await self._document(connection, unit, parked, parked.error)
            keys = sorted({parked.step.key for parked in steps})
            # The row lock holds back an operator who is just freeing the document.
            found = await rows(
                connection,
                "SELECT key, parking, since, base FROM readside.parked_documents WHERE app = %s"
                " AND projection = %s AND partition = %s AND key = ANY(%s) FOR UPDATE",
                [self._app, *unit, keys],
            )
            bases = {key: base for key, _, _, base in found}
            await self._events(connection, unit, steps, bases)
        return _holds([row[:3] for row in found])

    async def retried(
        self, unit: Unit, until: Position, after: tuple[str, Position] | None = None
    ) -> Sequence[tuple[str, Waiting]]:
        """See ports.ledger."""
        key, position = (after[0], after[1].encode()) if after else ("", "")
        found = await self._session.query(
            _PAGE, [self._app, *unit, until.encode(), key, key, position, PAGE, PAGE_BYTES]
        )
        return [(key, event_of(*row)) for key, *row in found]

    async def _fence(self, connection: Connection, unit: Unit, token: int) -> None:
        # The share lock keeps a newer owner from taking the lease before this is committed.
        held = await rows(
            connection,
            "SELECT 1 FROM readside.leases WHERE app = %s AND projection = %s AND partition = %s"
            " AND token = %s FOR SHARE",
            [self._app, *unit, token],
        )
        if not held:
            raise LeaseLostError("a newer owner has the lease")

    async def _document(
        self, connection: Connection, unit: Unit, parked: Parked, error: BaseException
    ) -> None:
        await rows(
            connection,
            "INSERT INTO readside.parked_documents"
            " (app, projection, partition, key, since, base, error_type, error, traceback)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            # One that came before: a store that came back empty, and code that takes less than it did.
            " ON CONFLICT (app, projection, partition, key) DO UPDATE SET since = excluded.since,"
            " base = excluded.base, error_type = excluded.error_type, error = excluded.error,"
            " traceback = excluded.traceback WHERE excluded.since < parked_documents.since",
            [
                self._app, *unit, parked.step.key, parked.step.record.position.encode(),
                parked.base, *described(error),
            ],
        )  # fmt: skip

    async def _events(
        self, connection: Connection, unit: Unit, steps: Sequence[Parked], bases: Mapping[str, str]
    ) -> None:
        kept = [parked for parked in steps if parked.step.key in bases]
        if not kept:
            return
        async with connection.cursor() as cursor:
            await cursor.executemany(
                b"INSERT INTO readside.parked_events (app, projection, partition, key, position,"
                b" predecessor, nth, id, type, event_key, version, payload, headers, recorded_at,"
                b" base) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                # It comes again, and everything before it has: what it needs is told anew.
                b" ON CONFLICT (app, projection, partition, key, position)"
                b" DO UPDATE SET applied_at = NULL, base = excluded.base",
                [
                    [
                        self._app, *unit, parked.step.key, record.position.encode(),
                        record.predecessor.encode(), record.nth, record.id, record.type, record.key,
                        record.version, record.payload, record.headers, record.recorded_at,
                        parked.base if parked.error is not None else bases[parked.step.key],
                    ]
                    for parked in kept
                    for record in [parked.step.record]
                ],
            )  # fmt: skip


async def forget_retried(connection: Connection, app: str, after: dt.timedelta) -> None:
    """Drop events that were applied by a retry so long ago that no read store goes back there."""
    await rows(
        connection,
        "DELETE FROM readside.parked_events WHERE app = %s"
        " AND applied_at < clock_timestamp() - %s::interval",
        [app, after],
    )


def _holds(found: Sequence[tuple[str, str, str]]) -> dict[str, Hold]:
    return {key: Hold(parking, Position.decode(since)) for key, parking, since in found}


#: In the order of `event_of`'s arguments.
EVENT_COLUMNS = (
    "partition, position, predecessor, nth, id, type, event_key, version, payload, recorded_at,"
    " headers, base"
)
#: The parked events, each with what its document must contain before: the one before it among
#: these, and what the document had when this parking began. The row has the second itself: the
#: events before it may be given up, and the document's row goes when it is free.
PARKED = (
    "(SELECT app, projection, partition, key, position, predecessor, nth, id, type, event_key,"
    " version, payload, headers, recorded_at, applied_at, greatest(base, lag(position) OVER"
    " (PARTITION BY app, projection, partition, key ORDER BY position)) AS base"
    " FROM readside.parked_events) parked"
)
_PAGE = (
    f"SELECT key, {EVENT_COLUMNS} FROM (SELECT *, sum(octet_length(payload))"
    " OVER (ORDER BY key, position ROWS UNBOUNDED PRECEDING) - octet_length(payload) AS before"
    f" FROM (SELECT * FROM {PARKED} WHERE app = %s AND projection = %s AND partition = %s"
    " AND applied_at IS NOT NULL AND position <= %s"
    # The key alone, too: the planner takes only that into the subquery, and to the index.
    " AND key >= %s AND (key, position) > (%s, %s)"
    " ORDER BY key, position LIMIT %s) counted) page WHERE before < %s ORDER BY key, position"
)


def event_of(
    partition: int,
    position: str,
    predecessor: str,
    nth: int,
    id_: str,
    type_: str,
    event_key: str,
    version: int,
    payload: bytes,
    recorded_at: int,
    headers: bytes,
    base: str,
) -> Waiting:
    """Read a row of `PARKED`."""
    record = Record(
        partition,
        Position.decode(position),
        Position.decode(predecessor),
        nth,
        id_,
        type_,
        event_key,
        version,
        bytes(payload),
        recorded_at,
        bytes(headers),
    )
    return Waiting(record, base)


def described(error: BaseException) -> tuple[str, str, str]:
    """Type, text and traceback of an error, as the row of a parked document has them."""
    cause = error.__cause__ or error
    trace = "".join(traceback.format_exception(error))[-_LONGEST:]
    return type(cause).__name__, _clean(str(error)), _clean(trace)


def _clean(text: str) -> str:
    return text.replace("\0", "\\0")[:_LONGEST]
