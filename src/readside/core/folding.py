"""Folding a batch: records in, documents and a checkpoint out; nothing in between is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple

from readside.core.errors import ENDINGS, THEN_RETRY, DecodeError, HandlerError
from readside.core.event import Event
from readside.core.position import WIDTH, Encoder, Position
from readside.core.projection import Projection, Route
from readside.core.record import Checkpoint, Record
from readside.core.view import ViewT

#: tuple's own constructor, where there are many: that of a NamedTuple is a Python function around it.
_new = tuple.__new__


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
    writes: Sequence[Write]
    #: Documents that this batch leaves behind, and which parking of theirs it is: readers are told.
    parked: tuple[tuple[str, str], ...] = ()
    #: The documents were not loaded, and `expected` of the writes says nothing: each must be new, or
    #: contain nothing but an earlier position of this partition.
    overwrites: bool = False


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
    #: The position of the record's partition that the document had when this came: what has to be
    #: in it before the step may be applied after all. Empty for nothing.
    base: str = ""


class Folded(NamedTuple):
    """What became of a batch's steps."""

    writes: tuple[Write, ...]
    poisons: tuple[Poison, ...]
    #: Steps behind a poison of the same document: they wait with it, in order.
    held: tuple[Step, ...]
    applied: int
    skipped: int


#: Marks the key under which events wait whose document is not known; no document has such a key.
UNROUTED: Final = "\x01"

_PLACE: Final = r"\+?[0-9]{1,9}:[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}"
_POSITIONS: Final = re.compile(f"{_PLACE}(;{_PLACE})*")

#: Marks an event that a document contains out of its turn, in the text of the positions.
_LATE: Final = "+"


def positions_of(text: str) -> dict[int, str]:
    """Read a document's positions, one encoded position a partition that feeds it.

    Raises:
        DecodeError: somebody else has written them.
    """
    if not text:
        return {}
    if not _POSITIONS.fullmatch(text):
        raise DecodeError(
            f"The read store has {text[:80]!r} for the positions that this document contains.",
            mend="find who writes readside's keys; then rebuild the projection: readside reset",
        )
    if ";" not in text and text[0] != _LATE:  # by far the most frequent: fed by one partition
        number, _, position = text.partition(":")
        return {int(number): position}
    pairs = (part.split(":", 1) for part in text.split(";") if part[0] != _LATE)
    return {int(number): position for number, position in pairs}


def positions_text(positions: Mapping[int, str], late: Iterable[str] = ()) -> str:
    """Write a document's positions; equal positions have equal texts."""
    if len(positions) == 1 and not late:
        ((number, position),) = positions.items()
        return f"{number}:{position}"
    parts = [f"{number}:{positions[number]}" for number in sorted(positions)]
    return ";".join([*parts, *sorted(late)])


def late_of(text: str) -> set[str]:
    """Read the marks of the events which a document contains out of their turn."""
    return {part for part in text.split(";") if part[:1] == _LATE}


def _late_mark(record: Record) -> str:
    return f"{_LATE}{record.partition}:{record.position.encode()}"


def precedes(text: str, positions: str) -> bool:
    """Whether a document may be overwritten unseen: it is new, or older and fed by the same partition.

    Args:
        text: its positions.
        positions: those that it is to have; one, of one partition.
    """
    if not text:
        return True
    prefix, _, _ = positions.partition(":")
    same = len(text) == len(positions) and text.startswith(f"{prefix}:")
    return same and text < positions


def contains(text: str, partition: int, position: Position) -> bool:
    """Whether a document with these positions has the effect of a record already."""
    return positions_of(text).get(partition, "") >= position.encode()


class Folder(Generic[ViewT]):
    """Turns records into writes for one projection. Pure: stores and brokers are elsewhere."""

    def __init__(self, projection: Projection[ViewT]) -> None:
        self.projection = projection

    def route(self, records: Iterable[Record]) -> list[Step]:
        """Find the documents of each record; unknown types concern none.

        A record which cannot be decoded is filed under its own key where that is its document's.
        Where a routing function or another field would have told the document, nobody knows it:
        the record is filed as unrouted, and so are the later ones of its key, so that their order
        is kept. Parked there, they wait, and everything else flows.
        """
        routes = self.projection.routes
        steps: list[Step] = []
        unrouted: set[str] = set()
        for record in records:
            route = routes.get(record.type)
            if route is None:
                continue
            if record.key in unrouted and not route.by_own_key:
                steps.append(Step(UNROUTED + record.key, record, route, None))
                continue
            try:
                event = route.decode(record)
                if route.by_own_key:
                    steps.append(_new(Step, (record.key, record, route, event, None)))
                    continue
                keys = route.keys(event)
            except (DecodeError, HandlerError) as error:
                key = record.key
                if not route.by_own_key:
                    unrouted.add(key)
                    key = UNROUTED + key
                steps.append(Step(key, record, route, None, error))
                continue
            steps.extend([Step(key, record, route, event) for key in keys])
        return steps

    def untried(self, record: Record, error: Exception) -> Step | None:
        """The step that parks a record without a look at it; None if nobody handles it."""
        route = self.projection.routes.get(record.type)
        if route is None:
            return None
        key = record.key if route.by_own_key else UNROUTED + record.key
        return Step(key, record, route, None, error)

    def waits(self, record: Record, parked: Collection[str]) -> Step | None:
        """The step of a record which has to wait unread, because those before it do."""
        route = self.projection.routes.get(record.type)
        key = UNROUTED + record.key
        if route is None or route.by_own_key or key not in parked:
            return None
        return Step(key, record, route, None)

    def fold(
        self, steps: Iterable[Step], loaded: Mapping[str, Stored], *, late: bool = False
    ) -> Folded:
        """Fold the steps into their documents, each document on its own and in order.

        Args:
            steps: what to apply.
            loaded: every document concerned.
            late: the steps come out of their turn, long after the checkpoint has passed them; each
                leaves a mark of its own in its documents, for their positions say nothing about it.
        """
        by_key: dict[str, list[Step]] = {}
        for step in steps:
            some = by_key.get(step.key)
            if some is None:
                by_key[step.key] = [step]
            else:
                some.append(step)
        writes: list[Write] = []
        poisons: list[Poison] = []
        held: list[Step] = []
        applied = skipped = 0
        encoder = Encoder()
        for key, wanted in by_key.items():
            plain = None if late else self._plainly(key, wanted, loaded[key], encoder)
            if plain is not None:
                write, count = plain
                applied += count
                skipped += len(wanted) - count
                if write is not None:
                    writes.append(write)
                continue
            try:
                document = _Document(self.projection, loaded[key], late=late)
            except DecodeError as error:  # nobody knows what it contains
                poisons.append(Poison(wanted[0], error))
                held.extend(wanted[1:])
                continue
            poison = document.take(wanted)
            applied += document.applied
            skipped += document.skipped
            if poison is not None:
                poisons.append(poison)
                held.extend(wanted[document.applied + document.skipped + 1 :])
            if document.applied:
                writes.append(document.write(key))
        return Folded(tuple(writes), tuple(poisons), tuple(held), applied, skipped)

    def _plainly(
        self, key: str, steps: list[Step], stored: Stored, encoder: Encoder
    ) -> tuple[Write | None, int] | None:
        """Fold a document the short way: fed by one partition, and nothing goes wrong.

        Does the same as `_Document` in a third of the time, which is most of a projector's. Handlers
        are pure, so whatever is unusual is left to `_Document`, which begins again.

        Returns:
            What to write if anything, and how many steps were applied; None for anything unusual.
        """
        partition = steps[0].record.partition
        prefix = f"{partition}:"
        before = positions = stored.positions
        if before and (len(before) != len(prefix) + WIDTH or not before.startswith(prefix)):
            return None  # fed by several partitions, or out of turn
        codec = self.projection.codec
        view: Any = _UNREAD
        applied = 0
        try:
            for _, record, route, event, _ in steps:
                if record.partition != partition:
                    return None
                text = prefix + encoder.encode(record.position)
                if text <= positions:
                    if not _POSITIONS.fullmatch(positions):
                        return None
                    continue  # contained already
                if event is None:
                    return None
                if not route.wants_view:
                    view = route.handler(event)
                else:
                    if view is _UNREAD:
                        found = stored.document
                        view = None if found is None else codec.decode(found)
                    view = route.handler(event, view)
                if view is not None and not isinstance(view, codec.view):
                    return None
                positions = text
                applied += 1
            if not applied:
                return None, 0
            encoded = None
            if view is not None:
                encoded = codec.encode(view)
                codec.decode(encoded)  # see _Document._encode
        except ENDINGS:
            raise
        except BaseException:  # noqa: BLE001 - whatever it is, the long way finds it again and says it
            return None
        return _new(Write, (key, before, positions, encoded)), applied


_UNREAD: Any = object()


class _Document:
    """One document on its way through a batch."""

    __slots__ = (
        "applied", "encoded", "late", "marks", "positions", "projection", "skipped", "stored", "view",
    )  # fmt: skip

    def __init__(self, projection: Projection[Any], stored: Stored, *, late: bool = False) -> None:
        self.projection = projection
        self.stored = stored
        self.late = late
        self.positions = positions_of(stored.positions)
        self.marks = late_of(stored.positions) if late or _LATE in stored.positions else set()
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
                self.__init__(self.projection, self.stored, late=self.late)  # type: ignore[misc]  # a fresh start
                poison = self._take(steps, careful=True)
        return poison

    def _take(self, steps: list[Step], *, careful: bool) -> Poison | None:
        for step in steps:
            record = step.record
            position = record.position.encode()
            if self._has(record, position):
                self.skipped += 1
                continue
            try:
                view = self._apply(step)
                if careful:
                    self.encoded = self._encode(view)
            except (DecodeError, HandlerError) as error:
                return Poison(step, error, self.positions.get(record.partition, ""))
            self.view = view
            self._note(record, position)
            self.applied += 1
        return None

    def _has(self, record: Record, position: str) -> bool:
        if self.marks and _late_mark(record) in self.marks:
            return True
        return not self.late and self.positions.get(record.partition, "") >= position

    def _note(self, record: Record, position: str) -> None:
        if self.late:
            # The positions stay: what comes before it may still have to be applied in its turn.
            self.marks.add(_late_mark(record))
        else:
            self.positions[record.partition] = position

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
            encoded = self.projection.codec.encode(view)
        except ENDINGS:
            raise
        except BaseException as error:  # also of an object whose fields are not all set
            raise HandlerError(
                f"The view cannot be written as JSON: {error}",
                mend=f"let the handler set every field, to what JSON knows or msgspec can encode, {THEN_RETRY}",
            ) from error
        try:
            # msgspec checks types when it reads, not when a struct is made.
            self.projection.codec.decode(encoded)
        except DecodeError as error:
            raise HandlerError(
                f"A handler of projection {self.projection.name!r} returned a view whose values do"
                f" not fit its fields: {error.detail}",
                mend="convert the values in the handler, or change the view's types",
            ) from error
        return encoded

    def write(self, key: str) -> Write:
        positions = positions_text(self.positions, self.marks)
        return Write(key, self.stored.positions, positions, self.encoded)
