"""Folding a batch: records in, documents and a checkpoint out; nothing in between is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple

from readside.core.errors import DecodeError, HandlerError
from readside.core.event import Event
from readside.core.position import WIDTH, Position
from readside.core.projection import Projection, Route
from readside.core.record import Checkpoint, Record
from readside.core.view import ViewT


class Stored(NamedTuple):
    """A document as the store has it: its JSON or None, and the positions that it contains.

    The positions outlive the document: a deleted one must not come back by an old event.
    """

    document: bytes | None
    positions: str


class Write(NamedTuple):
    """A document to write where the store still has what was read: compare and set."""

    key: str
    expected: str
    positions: str
    #: The JSON, or None to delete.
    document: bytes | None


class Batch(NamedTuple):
    """Documents and the checkpoint they bring a partition to; applied whole or not at all."""

    projection: str
    partition: int
    #: What the store must still hold, None for nothing; ignored where `checkpoint` is None.
    expected: Checkpoint | None
    #: None leaves the checkpoint alone (a parked event applied later).
    checkpoint: Checkpoint | None
    writes: tuple[Write, ...]


class Step(NamedTuple):
    """One event for one document."""

    key: str
    record: Record
    route: Route
    event: Event | None
    #: Why the event could not even be read; then `event` is None.
    error: Exception | None = None


class Poison(NamedTuple):
    """A step that cannot be applied, and why."""

    step: Step
    error: Exception


class Folded(NamedTuple):
    """What became of a batch's steps."""

    writes: tuple[Write, ...]
    poisons: tuple[Poison, ...]
    #: Steps behind a poison of the same document: they wait with it, in order.
    held: tuple[Step, ...]
    applied: int
    skipped: int


def positions_of(text: str) -> dict[int, str]:
    """Read a document's positions, one encoded position a partition that feeds it."""
    if not text:
        return {}
    pairs = (part.split(":", 1) for part in text.split(";"))
    return {int(number): position for number, position in pairs}


def positions_text(positions: Mapping[int, str]) -> str:
    """Write a document's positions; equal positions have equal texts."""
    if len(positions) == 1:
        ((number, position),) = positions.items()
        return f"{number}:{position}"
    return ";".join(f"{number}:{positions[number]}" for number in sorted(positions))


def contains(text: str, partition: int, position: Position) -> bool:
    """Whether a document with these positions has the effect of a record already."""
    return positions_of(text).get(partition, "0" * WIDTH) >= position.encode()


class Folder(Generic[ViewT]):
    """Turns records into writes for one projection. Pure: stores and brokers are elsewhere."""

    def __init__(self, projection: Projection[ViewT]) -> None:
        self.projection = projection

    def route(self, records: Iterable[Record]) -> list[Step]:
        """Find the documents of each record; unknown types concern none.

        A record which cannot be decoded or routed is filed under its own key, so that
        it is parked there and everything else flows.
        """
        routes = self.projection.routes
        steps: list[Step] = []
        for record in records:
            route = routes.get(record.type)
            if route is None:
                continue
            try:
                event = route.decode(record)
                keys = route.keys(event)
            except (DecodeError, HandlerError) as error:
                steps.append(Step(record.key, record, route, None, error))
                continue
            steps.extend([Step(key, record, route, event) for key in keys])
        return steps

    def fold(self, steps: Iterable[Step], loaded: Mapping[str, Stored]) -> Folded:
        """Fold the steps into their documents, each document on its own and in order."""
        by_key: dict[str, list[Step]] = {}
        for step in steps:
            by_key.setdefault(step.key, []).append(step)
        writes: list[Write] = []
        poisons: list[Poison] = []
        held: list[Step] = []
        applied = skipped = 0
        for key, wanted in by_key.items():
            document = _Document(self.projection, loaded[key])
            poison = document.take(wanted)
            applied += document.applied
            skipped += document.skipped
            if poison is not None:
                poisons.append(poison)
                held.extend(wanted[document.applied + document.skipped + 1 :])
            if document.applied:
                writes.append(document.write(key))
        return Folded(tuple(writes), tuple(poisons), tuple(held), applied, skipped)


_UNREAD: Any = object()


class _Document:
    """One document on its way through a batch."""

    __slots__ = ("applied", "encoded", "positions", "projection", "skipped", "stored", "view")

    def __init__(self, projection: Projection[Any], stored: Stored) -> None:
        self.projection = projection
        self.stored = stored
        self.positions = positions_of(stored.positions)
        self.view: Any = _UNREAD
        self.encoded: bytes | None = None
        self.applied = 0
        self.skipped = 0

    def take(self, steps: list[Step]) -> Poison | None:
        """Apply the steps in order until one fails."""
        poison = self._take(steps, careful=False)
        if self.applied:
            try:
                self.encoded = self._encode(self.view)
            except HandlerError:
                # One of the views cannot be written: go back and find out which.
                self.__init__(self.projection, self.stored)  # type: ignore[misc]  # a fresh start
                poison = self._take(steps, careful=True)
        return poison

    def _take(self, steps: list[Step], *, careful: bool) -> Poison | None:
        for step in steps:
            record = step.record
            position = record.position.encode()
            if self.positions.get(record.partition, "") >= position:
                self.skipped += 1
                continue
            try:
                view = self._apply(step)
                if careful:
                    self.encoded = self._encode(view)
            except (DecodeError, HandlerError) as error:
                return Poison(step, error)
            self.view = view
            self.positions[record.partition] = position
            self.applied += 1
        return None

    def _apply(self, step: Step) -> Any:
        if step.event is None:
            raise step.error or DecodeError("The event cannot be read.")
        if step.route.wants_view and self.view is _UNREAD:
            document = self.stored.document
            self.view = None if document is None else self.projection.codec.decode(document)
        return self.projection.fold(step.route, step.event, self.view)

    def _encode(self, view: Any) -> bytes | None:
        if view is None:
            return None
        try:
            return self.projection.codec.encode(view)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise HandlerError(f"The view cannot be written as JSON: {error}") from error

    def write(self, key: str) -> Write:
        return Write(key, self.stored.positions, positions_text(self.positions), self.encoded)
