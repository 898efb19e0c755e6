"""Parked documents: see them, fold them again after the fix, or give them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.session import Session, rows
from readside.core.folding import Batch, Folder, contains
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Record
from readside.ports.probe import probe
from readside.ports.store import Outcome, Store

#: Events of one document that are folded and freed at once.
_AT_ONCE = 500


class ParkedDocument(msgspec.Struct):
    """A document that cannot move on, and why."""

    projection: str
    partition: int
    key: str
    error_type: str
    error: str
    attempts: int
    parked_at: str
    tried_at: str
    #: Events that wait, the failing one first.
    events: int
    #: Position of the failing event.
    position: str
    event_type: str


class ParkedEvent(msgspec.Struct):
    """One waiting event, in full."""

    position: str
    id: str
    type: str
    version: int
    key: str
    payload: str


class Details(msgspec.Struct):
    """A parked document with everything that is known about it."""

    document: ParkedDocument
    traceback: str
    events: list[ParkedEvent]


class Retried(msgspec.Struct):
    """What became of a retry."""

    projection: str
    key: str
    applied: int
    #: Empty if the document is free again.
    error: str


class DeadLetters:
    """The parked documents of one app."""

    def __init__(self, session: Session, app: str) -> None:
        self._session = session
        self._app = app

    async def list(
        self, projection: str | None = None, key: str | None = None, error: str | None = None
    ) -> list[ParkedDocument]:
        """The parked documents, the longest parked first.

        Args:
            projection: only those of this projection.
            key: only this document.
            error: only those whose error or its type contains this text.
        """
        found = await self._session.query(
            "SELECT d.projection, d.partition, d.key, d.error_type, d.error, d.attempts,"
            " d.parked_at::text, d.tried_at::text, count(e.position), coalesce(min(e.position), ''),"
            " coalesce((array_agg(e.type ORDER BY e.position))[1], '')"
            " FROM readside.parked_documents d LEFT JOIN readside.parked_events e"
            " USING (app, projection, partition, key)"
            " WHERE d.app = %s AND (%s::text IS NULL OR d.projection = %s)"
            " AND (%s::text IS NULL OR d.key = %s)"
            " AND (%s::text IS NULL OR strpos(d.error_type || ' ' || d.error, %s) > 0)"
            " GROUP BY d.app, d.projection, d.partition, d.key ORDER BY d.parked_at, d.key",
            [self._app, projection, projection, key, key, error, error],
        )
        return [ParkedDocument(*row) for row in found]

    async def show(self, document: ParkedDocument) -> Details:
        """Everything about one parked document, payloads included."""
        unit = [self._app, document.projection, document.partition, document.key]
        async with self._session.connection() as connection:
            traces = await rows(
                connection,
                "SELECT traceback FROM readside.parked_documents"
                " WHERE app = %s AND projection = %s AND partition = %s AND key = %s",
                unit,
            )
            events = await _events(connection, unit, 1000)
        shown = [
            ParkedEvent(
                str(record.position),
                record.id,
                record.type,
                record.version,
                record.key,
                record.payload.decode(errors="replace"),
            )
            for record in events
        ]
        return Details(document, traces[0][0] if traces else "", shown)

    async def retry(
        self, document: ParkedDocument, projection: Projection[Any], store: Store
    ) -> Retried:
        """Fold the document's waiting events in order, and free it when none is left.

        Safe to interrupt at any moment and to run twice: an event which the document contains
        already is recognised by its position. The projector goes on holding back later
        events until the document is free, so nothing overtakes.
        """
        applied = 0
        unit = [self._app, document.projection, document.partition, document.key]
        folder = Folder(projection)
        while True:
            async with self._session.connection() as connection:
                records = await _events(connection, unit, _AT_ONCE)
            if not records:
                if await self._free(unit):
                    return Retried(document.projection, document.key, applied, "")
                continue
            error, last = await self._fold(folder, document, records, store)
            probe("dead_letters.folded")
            if last is not None:
                applied += await self._forget(unit, last)
            if error is not None:
                await self._note(unit, error)
                return Retried(document.projection, document.key, applied, str(error))

    async def _fold(
        self, folder: Folder[Any], document: ParkedDocument, records: Sequence[Record], store: Store
    ) -> tuple[Exception | None, Position | None]:
        """Apply what can be applied; return the error that stopped it, and the last event inside."""
        key = document.key
        steps = [step for step in folder.route(records) if step.key == key]
        routed = {step.record.position for step in steps}
        while True:
            (stored,) = await store.load(document.projection, [key])
            folded = folder.fold(steps, {key: stored})
            if folded.writes:
                batch = Batch(document.projection, document.partition, None, None, folded.writes)
                if await store.apply(batch) is Outcome.CONFLICT:
                    continue
            stop = folded.poisons[0].step.record.position if folded.poisons else None
            error = folded.poisons[0].error if folded.poisons else None
            inside = [
                record.position
                for record in records
                # The fixed code may route an event elsewhere or handle it no more: it is done as well.
                if (stop is None or record.position < stop)
                or (record.position not in routed and stop is None)
                or contains(stored.positions, record.partition, record.position)
            ]
            return error, max(inside, default=None)

    async def _forget(self, unit: Sequence[Any], last: Position) -> int:
        found = await self._session.query(
            "WITH gone AS (DELETE FROM readside.parked_events WHERE app = %s AND projection = %s"
            " AND partition = %s AND key = %s AND position <= %s RETURNING 1)"
            " SELECT count(*) FROM gone",
            [*unit, last.encode()],
        )
        return int(found[0][0])

    async def _free(self, unit: Sequence[Any]) -> bool:
        """Delete the document's row if no event came in meanwhile; the projector locks it too."""
        async with self._session.transaction() as connection:
            await rows(
                connection,
                "SELECT FROM readside.parked_documents WHERE app = %s AND projection = %s"
                " AND partition = %s AND key = %s FOR UPDATE",
                unit,
            )
            found = await rows(
                connection,
                "DELETE FROM readside.parked_documents d WHERE app = %s AND projection = %s"
                " AND partition = %s AND key = %s AND NOT EXISTS (SELECT FROM readside.parked_events e"
                " WHERE (e.app, e.projection, e.partition, e.key)"
                " = (d.app, d.projection, d.partition, d.key)) RETURNING 1",
                unit,
            )
            left = await rows(
                connection,
                "SELECT FROM readside.parked_documents WHERE app = %s AND projection = %s"
                " AND partition = %s AND key = %s",
                unit,
            )
        return bool(found) or not left

    async def _note(self, unit: Sequence[Any], error: Exception) -> None:
        cause = error.__cause__ or error
        await self._session.query(
            "UPDATE readside.parked_documents SET attempts = attempts + 1, error_type = %s,"
            " error = %s, tried_at = clock_timestamp() WHERE app = %s AND projection = %s"
            " AND partition = %s AND key = %s",
            [type(cause).__name__, str(error).replace("\0", "\\0"), *unit],
        )

    async def discard(self, document: ParkedDocument, *, whole: bool) -> int:
        """Give up the failing event, or all waiting ones; the rest has to be retried.

        The discarded events are gone for this projection; a line in the log of this
        command is all that stays. Returns how many.
        """
        unit = [self._app, document.projection, document.partition, document.key]
        found = await self._session.query(
            "WITH gone AS (DELETE FROM readside.parked_events WHERE app = %s AND projection = %s"
            " AND partition = %s AND key = %s AND (%s OR position = %s) RETURNING 1)"
            " SELECT count(*) FROM gone",
            [*unit, whole, document.position],
        )
        return int(found[0][0])

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()


async def _events(connection: Connection, unit: Sequence[Any], limit: int) -> list[Record]:
    found = await rows(
        connection,
        "SELECT partition, position, predecessor, nth, id, type, event_key, version, payload,"
        " recorded_at, headers FROM readside.parked_events WHERE app = %s AND projection = %s"
        " AND partition = %s AND key = %s ORDER BY position LIMIT %s",
        [*unit, limit],
    )
    return [
        Record(
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
        for (
            partition, position, predecessor, nth, id_, type_, event_key, version, payload,
            recorded_at, headers,
        ) in found
    ]  # fmt: skip
