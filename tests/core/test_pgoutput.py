"""The decoder against an encoder written from the documentation: "Logical Replication Message Formats"."""

from __future__ import annotations

from contextlib import suppress
from struct import pack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readside.core import pgoutput
from readside.core.errors import DecodeError
from readside.core.pgoutput import UNCHANGED

OID = st.integers(0, 2**32 - 1)
LSN = st.integers(0, 2**64 - 1)
#: Microseconds since 2000, as PostgreSQL counts.
TIME = st.integers(-(2**60), 2**60)
NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
VALUES = st.lists(st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=20)), max_size=6)


def string(text: str) -> bytes:
    return text.encode() + b"\0"


def row(values: list, kind: bytes = b"t") -> bytes:
    """TupleData: Int16 columns; for each 'n', 'u', or 't'/'b' with Int32 length and bytes."""
    made = pack("!h", len(values))
    for value in values:
        if value is None:
            made += b"n"
        elif value is UNCHANGED:
            made += b"u"
        else:
            made += kind + pack("!i", len(value)) + value
    return made


@st.composite
def begins(draw):
    lsn, time, xid = draw(LSN), draw(TIME), draw(OID)
    return b"B" + pack("!Qqi", lsn, time, xid - 2**31), pgoutput.Begin(
        lsn, time + 946_684_800_000_000, (xid - 2**31) % 2**32
    )


@st.composite
def commits(draw):
    lsn, end, time = draw(LSN), draw(LSN), draw(TIME)
    return b"C" + pack("!bQQq", 0, lsn, end, time), pgoutput.Commit(
        lsn, end, time + 946_684_800_000_000
    )


@st.composite
def relations(draw):
    oid, schema, name = draw(OID), draw(NAME), draw(NAME)
    identity = draw(st.sampled_from("dnfi"))
    columns = draw(st.lists(st.tuples(NAME, st.booleans(), OID), max_size=5))
    made = b"R" + pack("!I", oid) + string(schema) + string(name) + identity.encode()
    made += pack("!h", len(columns))
    for column, key, type_oid in columns:
        made += pack("!b", key) + string(column) + pack("!Ii", type_oid, -1)
    names, keys = tuple(c[0] for c in columns), tuple(c[1] for c in columns)
    return made, pgoutput.Relation(oid, schema, name, identity, names, keys)


@st.composite
def inserts(draw):
    oid, values = draw(OID), draw(VALUES)
    made = b"I" + pack("!I", oid) + b"N" + row(values, draw(st.sampled_from([b"t", b"b"])))
    return made, pgoutput.Insert(oid, tuple(values))


@st.composite
def updates(draw):
    oid, values = draw(OID), draw(VALUES)
    old = draw(st.none() | VALUES)
    kind = draw(st.sampled_from([b"K", b"O"]))
    made = b"U" + pack("!I", oid) + (b"" if old is None else kind + row(old)) + b"N" + row(values)
    return made, pgoutput.Update(oid, None if old is None else tuple(old), tuple(values))


@st.composite
def deletes(draw):
    oid, old = draw(OID), draw(VALUES)
    kind = draw(st.sampled_from([b"K", b"O"]))
    return b"D" + pack("!I", oid) + kind + row(old), pgoutput.Delete(oid, tuple(old))


@st.composite
def truncates(draw):
    oids = draw(st.lists(OID, max_size=4))
    made = b"T" + pack("!ib", len(oids), draw(st.integers(0, 3)))
    return made + b"".join(pack("!I", oid) for oid in oids), pgoutput.Truncate(tuple(oids))


@st.composite
def messages(draw):
    flag, lsn, prefix, content = draw(st.booleans()), draw(LSN), draw(NAME), draw(st.binary())
    made = b"M" + pack("!bQ", flag, lsn) + string(prefix) + pack("!i", len(content)) + content
    return made, pgoutput.Message(flag, lsn, prefix, content)


ALL = st.one_of(
    begins(), commits(), relations(), inserts(), updates(), deletes(), truncates(), messages()
)


@given(ALL)
def test_every_message_is_read_as_the_documentation_writes_it(case):
    encoded, expected = case
    decoded = pgoutput.decode(encoded)
    assert type(decoded) is type(expected)
    assert decoded == expected


@given(ALL)
def test_a_message_that_is_cut_short_anywhere_is_refused(case):
    encoded, _ = case
    for cut in range(len(encoded)):
        with pytest.raises(DecodeError):
            pgoutput.decode(encoded[:cut])


@given(st.binary(max_size=80))
@example(b"")
def test_arbitrary_bytes_raise_nothing_but_decode_error(data):
    with suppress(DecodeError):
        pgoutput.decode(data)


@given(ALL, st.data())
def test_a_damaged_message_raises_nothing_but_decode_error(case, data):
    encoded = bytearray(case[0])
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    with suppress(DecodeError):
        pgoutput.decode(bytes(encoded))


@given(st.sampled_from("OY"), st.binary(max_size=20))
def test_origins_and_types_carry_nothing_for_us(kind, rest):
    assert pgoutput.decode(kind.encode() + rest) == pgoutput.Other(ord(kind))


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(b"BCRIUDTMOY")))
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(DecodeError, match="unknown kind"):
        pgoutput.decode(bytes([kind]) + bytes(40))


def test_an_unchanged_large_value_is_neither_null_nor_text():
    message = b"U" + pack("!I", 7) + b"N" + row([b"1", UNCHANGED, None])
    update = pgoutput.decode(message)
    assert update.values[1] is UNCHANGED
    assert update.values[1] is not None
    assert update.values[2] is None
    assert repr(UNCHANGED) == "UNCHANGED"


@given(LSN, LSN, TIME, st.binary())
def test_data_is_unwrapped(start, end, time, message):
    frame = b"w" + pack("!QQq", start, end, time) + message
    assert pgoutput.unwrap(frame) == pgoutput.Data(start, message)


@given(LSN, TIME, st.booleans())
def test_a_keepalive_is_unwrapped(end, time, reply):
    frame = b"k" + pack("!Qqb", end, time, reply)
    assert pgoutput.unwrap(frame) == pgoutput.Keepalive(end, reply)


@given(st.sampled_from([b"w" + bytes(24), b"k" + bytes(17)]), st.data())
def test_a_frame_that_is_cut_short_is_refused(frame, data):
    with pytest.raises(DecodeError):
        pgoutput.unwrap(frame[: data.draw(st.integers(0, len(frame) - 1))])


@given(st.binary(max_size=40))
def test_arbitrary_frames_raise_nothing_but_decode_error(frame):
    with suppress(DecodeError):
        assert frame[:1] in {b"w", b"k"} or not pgoutput.unwrap(frame)


@given(LSN, st.integers(0, 2**55), st.booleans())
def test_feedback_is_the_standby_status_update_of_the_documentation(lsn, now, reply):
    # Byte1('r'), Int64 written, Int64 flushed, Int64 applied, Int64 time since 2000, Byte1 reply.
    expected = b"r" + pack("!QQQqb", lsn, lsn, lsn, now - 946_684_800_000_000, reply)
    assert pgoutput.feedback(lsn, now, reply=reply) == expected


TEXT = st.binary(max_size=20)
UUID = st.uuids().map(lambda found: str(found).encode())
VERSION = st.one_of(st.just(b"1"), TEXT)


@given(
    OID, st.tuples(UUID, *[TEXT] * 3, VERSION, st.one_of(st.none(), TEXT)), st.binary(max_size=30)
)
def test_a_row_of_six_is_read_without_a_loop(oid, values, before):
    data = b"I" + pack("!I", oid) + b"N" + row(list(values))
    assert data.startswith(pgoutput.head_of_six(oid))
    assert pgoutput.six(before + data, len(before)) == (*values[:5], values[5] or b"")
    assert pgoutput.inserted(before + data, len(before)) == (oid, list(values))


@given(st.tuples(UUID, *[TEXT] * 3, VERSION, TEXT), st.integers(1, 4), st.data())
def test_what_is_no_row_of_six_is_refused(values, nth, data):
    whole = b"I" + pack("!I", 7) + b"N" + row(list(values))
    broken = [
        whole[: data.draw(st.integers(0, len(whole) - 1))],
        whole + b"\0",
        b"I" + pack("!I", 7) + b"N" + row([*values[:nth], None, *values[nth + 1 :]]),
        b"I" + pack("!I", 7) + b"N" + row([*values, b"seven"]),
        b"I" + pack("!I", 7) + b"N" + row(list(values[:5])),
    ]
    for one in broken:
        # Where a NULL is, lengths are read from elsewhere: by chance they may even fit.
        with suppress(DecodeError):
            found = pgoutput.six(one)
            assert sum(map(len, found)) < len(one)
    for one in (*broken[:2], broken[3]):
        with pytest.raises(DecodeError):
            pgoutput.six(one)
