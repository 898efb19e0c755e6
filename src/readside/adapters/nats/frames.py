"""How many records of one partition travel in one message: a frame.

    subject     <app>.<partition>.$frame
    payload     MessagePack: [1, epoch, predecessor, nth, rows]
    a row       [lsn, ordinal, id, type, key, version, payload, committed at, headers, settled]

Predecessor (epoch, lsn, ordinal) and nth are those of the first record; each other record follows the
one before it, so neither travels. No header: whatever a message costs, it costs once a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Annotated, Literal, NamedTuple

import msgspec

from readside.core.errors import DecodeError
from readside.core.position import Position
from readside.core.record import Record

#: Last token of a frame's subject; no event type can be this.
TOKEN = "$frame"  # noqa: S105 - of a subject
#: How the subject of a frame ends, as it comes.
ENDING = f".{TOKEN}".encode()

#: Bytes and records of one frame; a record that is larger travels alone, as a message of its own.
LARGEST = 128 * 1024
_MOST = 1000
#: Bytes that numbers, the id and what separates them take beside the texts of a row, at most.
_ROW = 128

_Word = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Long = Annotated[int, msgspec.Meta(ge=0)]
_Row = tuple[_Long, _Word, str, str, str, int, bytes, int, bytes, _Long]


class _Frame(msgspec.Struct, array_like=True):
    form: Literal[1]
    epoch: _Word
    predecessor: tuple[_Word, _Long, _Word]
    nth: _Long
    rows: Annotated[list[_Row], msgspec.Meta(min_length=1)]


class Offsets(NamedTuple):
    """Where the log holds a frame, as offsets of records."""

    #: Of all records but the last: who begins after one of them has to read the frame again.
    before: str
    #: Of the last record.
    after: str


_decode = msgspec.msgpack.Decoder(_Frame).decode
_encode = msgspec.msgpack.Encoder().encode
_new = tuple.__new__


def is_frame(subject: str) -> bool:
    """Whether a message on this subject holds a frame."""
    return subject.endswith(f".{TOKEN}")


def grouped(records: Iterable[Record], largest: int = LARGEST) -> list[list[Record]]:
    """Group records so that each group can travel in one message of at most `largest` bytes.

    The order within a partition stays. In a group each record follows the one before it.
    """
    groups: list[list[Record]] = []
    latest: dict[int, list[Record]] = {}
    room: dict[int, int] = {}
    for record in records:
        partition, position, predecessor, nth, id_, type_, key, _, payload, _, headers, _, _ = record  # fmt: skip
        # At most: a character has four bytes.
        size = len(payload) + len(headers) + 4 * (len(id_) + len(type_) + len(key)) + _ROW
        group = latest.get(partition)
        if group is not None and size <= room[partition] and len(group) < _MOST:
            before = group[-1]
            if (
                predecessor == before.position
                and nth == before.nth + 1
                and position.epoch == predecessor.epoch
            ):
                group.append(record)
                room[partition] -= size
                continue
        latest[partition] = group = [record]
        groups.append(group)
        room[partition] = largest - size
    return groups


def frame_of(group: Sequence[Record]) -> bytes:
    """Write a group of records."""
    first = group[0]
    _, positions, _, _, ids, types, keys, versions, payloads, times, headers, _, settled = zip(*group, strict=True)  # fmt: skip
    _, lsns, ordinals = zip(*positions, strict=True)
    rows = zip(lsns, ordinals, ids, types, keys, versions, payloads, times, headers, settled, strict=True)  # fmt: skip
    return _encode((1, first.position.epoch, first.predecessor, first.nth, list(rows)))


def records_in(payload: bytes, partition: int, offsets: Offsets) -> list[Record]:
    """Read a frame.

    Raises:
        DecodeError: it is none.
    """
    try:
        frame = _decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DecodeError(f"A message on the stream is not readside's: {error!r}") from error
    count = len(frame.rows)
    lsns, ordinals, ids, types, keys, versions, payloads, times, headers, settled = zip(*frame.rows, strict=True)  # fmt: skip
    # tuple's own constructor, called by map: this is done for every event.
    positions = list(map(_new, repeat(Position), zip(repeat(frame.epoch), lsns, ordinals)))
    predecessors = [Position(*frame.predecessor), *positions[:-1]]
    numbers = range(frame.nth, frame.nth + count)
    held = [offsets.before] * (count - 1) + [offsets.after]
    return list(
        map(
            _new,
            repeat(Record),
            zip(
                repeat(partition), positions, predecessors, numbers, ids, types, keys, versions,
                payloads, times, headers, held, settled,
            ),
        )
    )  # fmt: skip
