"""The chain of records in a partition: stamped by the relay, judged by the projector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from operator import attrgetter, is_
from typing import NamedTuple

from readside.core.partition import partition_of
from readside.core.position import Position
from readside.core.record import Captured, Record, Watermark

_new = tuple.__new__
_POSITION = attrgetter("position")
_PREDECESSOR = attrgetter("predecessor")


class Head(NamedTuple):
    """The last record of a partition: its position and its number there."""

    position: Position
    nth: int


class Verdict(Enum):
    """What a record is to a consumer."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    HOLE = "hole"
    #: It follows by its position and not by its number: of another history than what was applied.
    FORK = "fork"


def judge(applied: Head, record: Record) -> Verdict:
    """Say what a record is to a consumer that has applied everything up to a position.

    A predecessor below that is fine: the consumer knows more than the record's sender had to
    say (a watermark moved it on past quiet history). But then the record is the very next: where
    its number is another, the log's positions were used twice, which a database does that came
    back as it was earlier.

    Args:
        applied: the consumer's position, and the number of the last record that it has applied.
        record: what comes.
    """
    if record.position <= applied.position:
        return Verdict.DUPLICATE
    if record.predecessor > applied.position:
        return Verdict.HOLE
    return Verdict.NEXT if record.nth == applied.nth + 1 else Verdict.FORK


class Sifted(NamedTuple):
    """What is to be done about records that came."""

    #: Those to apply, in order.
    fresh: list[Record]
    #: The one that cannot be applied because of a hole or a fork; those after it are of no use yet.
    stopper: Record | None
    verdict: Verdict


def sift(applied: Head, records: list[Record]) -> Sifted:
    """Take what is next, drop duplicates, stop at a hole or a fork."""
    if judge(applied, records[0]) is Verdict.NEXT and all(
        map(is_, map(_POSITION, records), map(_PREDECESSOR, records[1:]))
    ):
        # By far the most frequent: a whole batch in order, as one chain or one reader has made it.
        return Sifted(records, None, Verdict.NEXT)
    fresh: list[Record] = []
    for record in records:
        verdict = judge(applied, record)
        if verdict is Verdict.NEXT:
            fresh.append(record)
            applied = Head(record.position, record.nth)
        elif verdict is not Verdict.DUPLICATE:
            return Sifted(fresh, record, verdict)
    return Sifted(fresh, None, Verdict.NEXT)


class Chain:
    """Stamps captured events with partition, predecessor and number.

    Deterministic: from the same heads and the same history come the same records, on every
    re-send and from every relay. So a relay that wakes up late publishes only duplicates.
    """

    def __init__(self, partitions: int, origin: Position, heads: Mapping[int, Head]) -> None:
        start = Head(origin, 0)
        self.heads = [heads.get(number, start) for number in range(partitions)]

    def stamp(self, events: Iterable[Captured]) -> list[Record]:
        """Turn captured events into records, and move the heads."""
        # Lists of their own, so that there is no head for each record.
        positions, counts = [[*column] for column in zip(*self.heads, strict=True)]
        partitions = len(positions)
        records = []
        for position, id_, type_, key, version, payload, recorded_at, headers in events:
            number = partition_of(key, partitions)
            predecessor = positions[number]
            positions[number] = position
            counts[number] = nth = counts[number] + 1
            # tuple's own constructor: that of a NamedTuple is a Python function around it.
            records.append(
                _new(
                    Record,
                    (
                        number, position, predecessor, nth, id_, type_, key, version, payload,
                        recorded_at, headers, "", 0,
                    ),
                )
            )  # fmt: skip
        self.heads = [*map(Head, positions, counts)]
        return records

    def watermark(self, partition: int, position: Position) -> Watermark:
        """The word on a partition when everything before `position` has been stamped."""
        head = self.heads[partition]
        return Watermark(partition, head.position, head.nth, max(position, head.position))
