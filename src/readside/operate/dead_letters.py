"""Parked documents: see them, fold them again after the fix, or give them up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from readside.adapters.postgres.parking import EVENT_COLUMNS, PARKED, described, event_of
from readside.adapters.postgres.session import Session, rows
from readside.core.folding import UNROUTED, Folder
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.projection import Projection
from readside.ports.ledger import Waiting
from readside.ports.probe import probe
from readside.ports.store import Store
from readside.projector.release import release

log = logging.getLogger("readside.dead_letters")

#: Events of one document that are folded and freed at once.
_AT_ONCE = 500
#: Waiting events that are shown in full.
_SHOWN = 1000

_TOO_EARLY = "the projector still has to bring what comes before; run it, and retry then"
_DOCUMENT = " WHERE app = %s AND projection = %s AND partition = %s AND key = %s"


class ParkedDocument(msgspec.Struct):
    """A document that cannot move on, and why."""

    projection: str
    partition: int
    #: The document's key; or the events' key, where nobody could tell their documents.
    key: str
    #: Whether the documents of these events are unknown: decoding or routing failed.
    unrouted: bool
    error_type: str
    error: str
    #: How often it was tried.
    attempts: int
    parked_at: str
    tried_at: str
    #: Events that wait, the failing one first.
    events: int
    #: Position of the failing event.
    position: str
    event_type: str
    #: Names this parking of the document.
    parking: str

    @property
    def name(self) -> str:
        """As people know it."""
        if self.unrouted:
            return f"{self.projection}: events of key {self.key}"
        return f"{self.projection}:{self.key}"


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
    waiting: list[ParkedEvent]


class Retried(msgspec.Struct):
    """What became of a retry."""

    projection: str
    key: str
    #: Events that were applied, or found to be.
    applied: int
    #: Empty if the document is free again.
    error: str


class Letters(Protocol):
    """What a retry has to know of a parked document, and notes down about it."""

    async def waiting(self, document: ParkedDocument, limit: int) -> Sequence[Waiting]:
        """The first of its events that no retry has applied, in order."""

    async def retried(self, document: ParkedDocument) -> Sequence[Waiting]:
        """Those that a retry has applied and that are remembered, in order."""

    async def done(self, document: ParkedDocument, until: Position) -> int:
        """Note that its events up to a position are applied; say how many these are."""

    async def free(self, document: ParkedDocument, store: Store) -> bool:
        """Let it move on, and tell its readers, if no event came in meanwhile; say if so."""

    async def note(self, document: ParkedDocument, error: Exception) -> None:
        """Note why it still cannot move on."""


async def retry(
    letters: Letters, document: ParkedDocument, projection: Projection[Any], store: Store
) -> Retried:
    """Fold a document's waiting events, whatever they are noted in; see `DeadLetters.retry`."""
    applied = 0
    unit, key = Unit(document.projection, document.partition), key_of(document)
    folder = Folder(projection)
    while True:
        events = await letters.waiting(document, _AT_ONCE)
        if not events:
            if await letters.free(document, store):
                return Retried(document.projection, document.key, applied, "")
            continue
        released = await release(folder, store, unit, key, events)
        # Of what an earlier retry has applied, the store may have lost the write alone: no checkpoint
        # shows that, so no projector brings it. What the document has is passed over.
        if released.too_early and (before := await letters.retried(document)):
            every = sorted([*before, *events], key=lambda one: one.record.position)
            released = await release(folder, store, unit, key, every)
        probe("dead_letters.folded")
        if released.until is not None:
            applied += await letters.done(document, released.until)
        if released.error is not None:
            await letters.note(document, released.error)
            return Retried(document.projection, document.key, applied, str(released.error))
        if released.too_early:
            return Retried(document.projection, document.key, applied, _TOO_EARLY)


def key_of(document: ParkedDocument) -> str:
    """What it is parked under."""
    return UNROUTED + document.key if document.unrouted else document.key


class DeadLetters:
    """The parked documents of one app."""

    def __init__(self, session: Session, app: str) -> None:
        self._session = session
        self._app = app

    async def find(
        self, projection: str | None = None, key: str | None = None, error: str | None = None
    ) -> list[ParkedDocument]:
        """The parked documents, the longest parked first.

        Args:
            projection: only those of this projection.
            key: only this document.
            error: only those whose error or its type contains this text.
        """
        found = await self._session.query(
            "SELECT d.projection, d.partition, ltrim(d.key, %s), starts_with(d.key, %s),"
            " d.error_type, d.error, d.attempts, d.parked_at::text, d.tried_at::text,"
            " count(e.position), coalesce(min(e.position), ''),"
            " coalesce((array_agg(e.type ORDER BY e.position))[1], ''), d.parking"
            " FROM readside.parked_documents d LEFT JOIN (SELECT * FROM readside.parked_events"
            "  WHERE applied_at IS NULL) e USING (app, projection, partition, key)"
            " WHERE d.app = %s AND (%s::text IS NULL OR d.projection = %s)"
            " AND (%s::text IS NULL OR ltrim(d.key, %s) = %s)"
            " AND (%s::text IS NULL OR strpos(d.error_type || ' ' || d.error, %s) > 0)"
            " GROUP BY d.app, d.projection, d.partition, d.key ORDER BY d.parked_at, d.key",
            [
                UNROUTED, UNROUTED, self._app, projection, projection,
                key, UNROUTED, key, error, error,
            ],
        )  # fmt: skip
        return [ParkedDocument(*row) for row in found]

    async def show(self, document: ParkedDocument) -> Details:
        """Everything about one parked document, payloads included."""
        traces = await self._session.query(
            "SELECT traceback FROM readside.parked_documents" + _DOCUMENT, self._row(document)
        )
        waiting = [
            ParkedEvent(
                str(record.position),
                record.id,
                record.type,
                record.version,
                record.key,
                record.payload.decode(errors="replace"),
            )
            for record, _ in await self.waiting(document, _SHOWN)
        ]
        return Details(document, traces[0][0] if traces else "", waiting)

    async def retry(
        self, document: ParkedDocument, projection: Projection[Any], store: Store
    ) -> Retried:
        """Fold the document's waiting events in order, and free it when none is left.

        Safe to interrupt at any moment and to run twice: an event which the document contains
        already is recognised. The projector goes on holding back later events until the
        document is free, so nothing overtakes.
        """
        return await retry(self, document, projection, store)

    async def discard(self, document: ParkedDocument, *, whole: bool) -> int:
        """Give up the failing event, or all waiting ones; the rest has to be retried.

        The discarded events are gone for this projection, and the log says which. Returns how many.
        """
        row = self._row(document)
        found = await self._session.query(
            # What waits for the discarded one, waits for what that has waited for, no longer for itself.
            f"WITH failing AS (SELECT base FROM {PARKED}"
            + _DOCUMENT
            + " AND position = %s), heirs AS (UPDATE readside.parked_events e SET base = failing.base"
            " FROM failing"
            + _DOCUMENT
            + " AND e.base = %s AND NOT %s), gone AS (DELETE FROM readside.parked_events"
            + _DOCUMENT
            + " AND applied_at IS NULL AND (%s OR position = %s) RETURNING type, position)"
            " SELECT type, count(*), min(position), max(position) FROM gone GROUP BY type ORDER BY type",
            [
                *row, document.position, *row, document.position, whole,
                *row, whole, document.position,
            ],
        )  # fmt: skip
        count = sum(int(number) for _, number, _, _ in found)
        if count:
            first = Position.decode(min(position for _, _, position, _ in found))
            last = Position.decode(max(position for *_, position in found))
            log.warning(
                "%s, partition %s: %s events given up, at %s: %s",
                document.name, document.partition, count,
                first if first == last else f"{first} to {last}",
                ", ".join(f"{number} {type_}" for type_, number, _, _ in found),
            )  # fmt: skip
        return count

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()

    def _row(self, document: ParkedDocument) -> list[Any]:
        return [self._app, document.projection, document.partition, key_of(document)]

    async def waiting(self, document: ParkedDocument, limit: int) -> Sequence[Waiting]:
        """See Letters."""
        found = await self._session.query(
            f"SELECT {EVENT_COLUMNS} FROM {PARKED}"
            + _DOCUMENT
            + " AND applied_at IS NULL ORDER BY position LIMIT %s",
            [*self._row(document), limit],
        )
        return [event_of(*row) for row in found]

    async def retried(self, document: ParkedDocument) -> Sequence[Waiting]:
        """See Letters."""
        found = await self._session.query(
            f"SELECT {EVENT_COLUMNS} FROM {PARKED}"
            + _DOCUMENT
            + " AND applied_at IS NOT NULL ORDER BY position",
            self._row(document),
        )
        return [event_of(*row) for row in found]

    async def done(self, document: ParkedDocument, until: Position) -> int:
        """See Letters."""
        found = await self._session.query(
            "WITH done AS (UPDATE readside.parked_events SET applied_at = clock_timestamp()"
            + _DOCUMENT
            + " AND applied_at IS NULL AND position <= %s RETURNING 1) SELECT count(*) FROM done",
            [*self._row(document), until.encode()],
        )
        return int(found[0][0])

    async def free(self, document: ParkedDocument, store: Store) -> bool:
        """See Letters; deletes the document's row, which the projector locks too.

        Readers are told before the row is gone for good: it is what a repeated retry finds.
        """
        row = self._row(document)
        async with self._session.transaction() as connection:
            await rows(
                connection,
                "SELECT 1 FROM readside.parked_documents" + _DOCUMENT + " FOR UPDATE",
                row,
            )
            waiting = await rows(
                connection,
                "SELECT 1 FROM readside.parked_events"
                + _DOCUMENT
                + " AND applied_at IS NULL LIMIT 1",
                row,
            )
            if not waiting:
                await rows(connection, "DELETE FROM readside.parked_documents" + _DOCUMENT, row)
                unit = Unit(document.projection, document.partition)
                await store.unpark(*unit, key_of(document), document.parking)
                probe("dead_letters.freed")
        return not waiting

    async def note(self, document: ParkedDocument, error: Exception) -> None:
        """See Letters."""
        await self._session.query(
            "UPDATE readside.parked_documents SET attempts = attempts + 1, error_type = %s,"
            " error = %s, traceback = %s, tried_at = clock_timestamp()" + _DOCUMENT,
            [*described(error), *self._row(document)],
        )
