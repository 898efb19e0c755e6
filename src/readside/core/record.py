"""What travels: a recorded event with its place in the history and in its partition."""

from __future__ import annotations

from typing import Any, NamedTuple

from readside.core.errors import DecodeError
from readside.core.position import BEGINNING, Position


class Captured(NamedTuple):
    """One event as the source hands it over, in commit order."""

    position: Position
    id: str
    type: str
    key: str
    version: int
    #: The event's plain JSON, exactly as it was recorded.
    payload: bytes
    #: Microseconds since 1970 by PostgreSQL's clock: for people and lag, never for decisions.
    recorded_at: int
    #: Further headers as a JSON object (trace context), or empty.
    headers: bytes = b""


class Record(NamedTuple):
    """One event in its partition; it names its predecessor there.

    So a consumer sees at once whether the record is next, a duplicate, or behind a hole.
    """

    partition: int
    position: Position
    #: The position of the record before this one in the same partition.
    predecessor: Position
    #: Counts the records of the partition from 1.
    nth: int
    id: str
    type: str
    key: str
    version: int
    payload: bytes
    recorded_at: int
    headers: bytes = b""
    #: Where a broker's log holds it; opaque, and empty before it was there.
    offset: str = ""
    #: Everything that committed before this LSN is in this record or one before it; 0 if that was
    #: not known when it was sent. So a reader's token need not wait for the next watermark.
    settled: int = 0

    @property
    def reaches(self) -> Position:
        """Where a consumer is that has applied this record."""
        return max(self.position, Position(self.position.epoch, self.settled, 0))


def written(number: int, row: tuple[Any, ...]) -> Record:
    """A row of the outbox as a record before it has a place: its position only counts."""
    id_, _, _, key, wire, version, payload, _ = row
    position = Position(1, 1, number)
    return Record(0, position, BEGINNING, number, str(id_), wire, key, version, payload.encode(), 0)


class Watermark(NamedTuple):
    """The relay's word on one partition: its last record, and how far the history is known.

    A consumer that has `last` has everything which committed before `position`.
    """

    partition: int
    last: Position
    #: Number of records in the partition so far.
    nth: int
    position: Position


class Checkpoint(NamedTuple):
    """How far one projection has applied one partition; stored with the documents."""

    position: Position
    #: Number of the last applied record in its partition.
    nth: int
    #: Where to go on reading in the broker's log.
    offset: str
    #: Fencing token: grows with every new owner of the partition.
    token: int

    def encode(self) -> str:
        """Return one line of text; equal checkpoints have equal texts."""
        return f"{self.token:012d} {self.position.encode()} {self.nth} {self.offset}"

    @classmethod
    def decode(cls, text: str) -> Checkpoint:
        """Read what `encode` wrote.

        Raises:
            DecodeError: the text is not an encoded checkpoint.
        """
        try:
            token, position, nth, offset = text.split(" ", 3)
            return cls(Position.decode(position), int(nth), offset, int(token))
        except ValueError as error:
            raise DecodeError(f"{text[:80]!r} is not a checkpoint.") from error
