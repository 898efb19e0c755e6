"""Decoder of PostgreSQL's logical replication messages (plugin pgoutput, protocol version 2).

Source: PostgreSQL documentation, "Logical Replication Message Formats". Streaming of
unfinished transactions is never asked for, so a transaction arrives whole, after its
commit, between `Begin` and `Commit`; the server keeps large ones on its own disk.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error
from typing import Final, NamedTuple

from readside.core.errors import DecodeError

#: Microseconds between 1970 and 2000, the epoch of PostgreSQL's clock.
EPOCH_OFFSET: Final = 946_684_800_000_000

_BEGIN = Struct("!QqI")
_COMMIT = Struct("!BQQq")
_U32 = Struct("!I")
_I16 = Struct("!h")
_MESSAGE = Struct("!BQ")
_COLUMN = Struct("!Ii")
_SIX = Struct("!cIchcI")
#: A UUID's text; the next column's kind and length.
_UUID = Struct("!36sxI")
#: How a row of six mostly ends: with version 1 and without headers.
_ONE_AND_NULL = b"t\0\0\0\x011n"
_XLOG_DATA = Struct("!QQq")
_KEEPALIVE = Struct("!Qqb")
_FEEDBACK = Struct("!cQQQqb")


class Unchanged:
    """Stands for a large value that an UPDATE did not touch and PostgreSQL did not send."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()

#: A column's text, None for NULL.
Value = bytes | None | Unchanged


class Begin(NamedTuple):
    """Start of a committed transaction."""

    commit_lsn: int
    #: Microseconds since 1970.
    committed_at: int
    xid: int


class Commit(NamedTuple):
    """End of a transaction."""

    commit_lsn: int
    end_lsn: int
    committed_at: int


class Relation(NamedTuple):
    """A table and its columns, sent before its first change."""

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[str, ...]
    keys: tuple[bool, ...]


class Insert(NamedTuple):
    """A new row."""

    oid: int
    values: tuple[Value, ...]


class Update(NamedTuple):
    """A changed row; `old` holds the old key or row where PostgreSQL sent it."""

    oid: int
    old: tuple[Value, ...] | None
    values: tuple[Value, ...]


class Delete(NamedTuple):
    """A row that is gone."""

    oid: int
    old: tuple[Value, ...]


class Truncate(NamedTuple):
    """Tables that were emptied."""

    oids: tuple[int, ...]


class Message(NamedTuple):
    """What `pg_logical_emit_message` wrote."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


class Other(NamedTuple):
    """A message that carries nothing for us (origin, type)."""

    kind: int


Decoded = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Message | Other


class Data(NamedTuple):
    """A piece of the stream: where it is in the log, and the message."""

    lsn: int
    message: bytes


class Keepalive(NamedTuple):
    """The server's word on how far it has sent, and whether it wants an answer."""

    lsn: int
    reply: bool


def unwrap(frame: bytes) -> Data | Keepalive:
    """Open one frame of the replication stream.

    Raises:
        DecodeError: the frame is of no known kind.
    """
    try:
        if frame[0] == 0x77:  # w
            return Data(_XLOG_DATA.unpack_from(frame, 1)[0], frame[25:])
        if frame[0] == 0x6B:  # k
            lsn, _, reply = _KEEPALIVE.unpack_from(frame, 1)
            return Keepalive(lsn, bool(reply))
    except (error, IndexError) as problem:
        raise DecodeError(f"A replication frame of {len(frame)} bytes is cut short.") from problem
    raise DecodeError(f"A replication frame of unknown kind {frame[:1]!r}.")


def feedback(lsn: int, now: int, *, reply: bool = False) -> bytes:
    """The standby's status: everything before `lsn` may be forgotten.

    Args:
        lsn: bytes; reported as written, flushed and applied.
        now: microseconds since 1970.
        reply: whether the server should answer at once.
    """
    return _FEEDBACK.pack(b"r", lsn, lsn, lsn, now - EPOCH_OFFSET, reply)


def decode(data: bytes) -> Decoded:
    """Decode one message.

    Raises:
        DecodeError: it is cut short or of no known kind.
    """
    try:
        return _DECODERS[data[0]](data)
    except KeyError as problem:
        raise DecodeError(f"A pgoutput message of unknown kind {data[:1]!r}.") from problem
    except (error, IndexError, UnicodeDecodeError) as problem:
        raise DecodeError(f"A pgoutput message {data[:1]!r} is cut short or damaged.") from problem


def inserted(data: bytes, at: int = 0) -> tuple[int, list[Value]]:
    """Read an `Insert` that begins at `at`, without the tuples that `decode` makes: the hot path.

    Returns:
        The table's oid, and the columns.

    Raises:
        DecodeError: it is cut short.
    """
    try:
        return _U32.unpack_from(data, at + 1)[0], _values(data, at + 6)[0]
    except (error, IndexError) as problem:
        raise DecodeError("A pgoutput message b'I' is cut short or damaged.") from problem


def head_of_six(oid: int) -> bytes:
    """How an `Insert` into a table begins of which six columns are told, and the first is a UUID."""
    return _SIX.pack(b"I", oid, b"N", 6, b"t", 36)


def six(data: bytes, at: int = 0) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """Read an `Insert` which begins as `head_of_six` says; only its last column may be NULL: that is told as empty.

    The same as `inserted`, without its loop, which takes half of the time of a row.

    Raises:
        DecodeError: it is cut short, or another of its columns is NULL.
    """
    length_of = _U32.unpack_from
    try:
        first, length = _UUID.unpack_from(data, at + 13)
        start_2 = at + 54
        end_2 = start_2 + length
        start_3 = end_2 + 5
        end_3 = start_3 + length_of(data, end_2 + 1)[0]
        start_4 = end_3 + 5
        end_4 = start_4 + length_of(data, end_3 + 1)[0]
        tail = data[end_4:]
        if tail == _ONE_AND_NULL:
            fifth, last = b"1", b""
        else:
            fifth, last = _last_two(tail)
    except (error, IndexError) as problem:
        raise DecodeError("A pgoutput message b'I' is cut short or damaged.") from problem
    return first, data[start_2:end_2], data[start_3:end_3], data[start_4:end_4], fifth, last


def _last_two(data: bytes) -> tuple[bytes, bytes]:
    end = 5 + _U32.unpack_from(data, 1)[0]
    last = b""
    stop = end + 1
    if data[end] != 0x6E:  # n
        stop = end + 5 + _U32.unpack_from(data, stop)[0]
        last = data[end + 5 : stop]
    if stop != len(data):  # slices do not complain, and a NULL has no length
        raise DecodeError("A pgoutput message b'I' is not of six columns.")
    return data[5:end], last


def _values(data: bytes, at: int) -> tuple[list[Value], int]:
    (count,) = _I16.unpack_from(data, at)
    at += 2
    values: list[Value] = []
    length_of = _U32.unpack_from
    for _ in range(count):
        kind = data[at]
        if kind == 0x74 or kind == 0x62:  # t or b
            start = at + 5
            at = start + length_of(data, at + 1)[0]
            values.append(data[start:at])
            continue
        at += 1
        if kind == 0x6E:  # n
            values.append(None)
        elif kind == 0x75:  # u
            values.append(UNCHANGED)
        else:
            raise DecodeError(f"A column of unknown kind {kind:#x}.")
    if at > len(data):
        raise IndexError(at)  # slices do not complain
    return values, at


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at) if b"\0" in data[at:] else len(data) + 1
    if end > len(data):
        raise IndexError(end)
    return data[at:end].decode(), end + 1


def _begin(data: bytes) -> Begin:
    lsn, time, xid = _BEGIN.unpack_from(data, 1)
    return Begin(lsn, time + EPOCH_OFFSET, xid)


def _commit(data: bytes) -> Commit:
    _, lsn, end, time = _COMMIT.unpack_from(data, 1)
    return Commit(lsn, end, time + EPOCH_OFFSET)


def _relation(data: bytes) -> Relation:
    (oid,) = _U32.unpack_from(data, 1)
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _I16.unpack_from(data, at + 1)
    at += 3
    columns, keys = [], []
    for _ in range(count):
        keys.append(bool(data[at] & 1))
        column, at = _text(data, at + 1)
        _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        columns.append(column)
    return Relation(oid, schema, name, identity, tuple(columns), tuple(keys))


def _update(data: bytes) -> Update:
    (oid,) = _U32.unpack_from(data, 1)
    old = None
    at = 5
    if data[at] != 0x4E:  # K or O: the old key or row comes first
        before, at = _values(data, at + 1)
        old = tuple(before)
    if data[at] != 0x4E:  # N
        raise IndexError(at)
    return Update(oid, old, tuple(_values(data, at + 1)[0]))


def _insert(data: bytes) -> Insert:
    oid, values = inserted(data)
    return Insert(oid, tuple(values))


def _delete(data: bytes) -> Delete:
    return Delete(_U32.unpack_from(data, 1)[0], tuple(_values(data, 6)[0]))


def _truncate(data: bytes) -> Truncate:
    (count,) = _U32.unpack_from(data, 1)
    if len(data) < 6 + 4 * count:
        raise IndexError(count)
    return Truncate(tuple(_U32.unpack_from(data, 6 + 4 * number)[0] for number in range(count)))


def _message(data: bytes) -> Message:
    flags, lsn = _MESSAGE.unpack_from(data, 1)
    prefix, at = _text(data, 1 + _MESSAGE.size)
    (length,) = _U32.unpack_from(data, at)
    if at + 4 + length > len(data):
        raise IndexError(length)
    return Message(bool(flags & 1), lsn, prefix, data[at + 4 : at + 4 + length])


def _other(data: bytes) -> Other:
    return Other(data[0])


_DECODERS: Final[dict[int, Callable[[bytes], Decoded]]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("R"): _relation,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
    ord("O"): _other,
    ord("Y"): _other,
}
