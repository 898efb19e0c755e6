"""Frames as bytes: what was written is read, and nothing else passes for one."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readside.adapters.nats.frames import (
    TOKEN,
    Offsets,
    frame_of,
    grouped,
    is_frame,
    records_in,
)
from readside.core.errors import DecodeError
from readside.core.event import _WIRE_TYPE
from readside.core.position import BEGINNING, Position
from readside.core.record import Record

OFFSETS = Offsets("log:6", "log:7")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)
EVENTS = st.tuples(
    st.integers(0, 2),  # partition
    LONG,
    WORD,
    TEXT,  # id
    TEXT,  # type
    TEXT,  # key
    st.integers(1, 2**31 - 1),
    st.binary(max_size=300),
    st.integers(0, 2**53),
    st.just(b"") | st.binary(max_size=60),
    st.just(0) | LONG,
)


@st.composite
def histories(draw):
    """Records of several partitions, nearly always each after the one before it in its partition."""
    heads = {}
    made = []
    for partition, lsn, ordinal, id_, type_, key, *rest in draw(st.lists(EVENTS, max_size=30)):
        version, payload, recorded_at, headers, settled = rest
        position, nth = heads.get(partition, (BEGINNING, draw(st.integers(0, 2**62))))
        epoch = position.epoch
        if draw(st.integers(0, 9)) == 0:
            epoch, nth = draw(WORD), draw(st.integers(0, 2**62))
        elif draw(st.integers(0, 9)) == 0:
            position = Position(draw(WORD), draw(LONG), draw(WORD))
        at = Position(epoch, lsn, ordinal)
        made.append(
            Record(
                partition, at, position, nth + 1, id_, type_, key, version, payload, recorded_at,
                headers, "", settled,
            )
        )  # fmt: skip
        heads[partition] = (at, nth + 1)
    return made


def chain(count: int, size: int = 10) -> list[Record]:
    """Records of one partition, each after the one before it."""
    places = [BEGINNING, *(Position(7, number, 1) for number in range(1, count + 1))]
    return [
        Record(3, at, before, number, f"id-{number}", "a.b", "k", 1, b"x" * size, 5)
        for number, (before, at) in enumerate(pairwise(places), 1)
    ]


GOOD = chain(3)


@given(histories(), st.integers(0, 3000))
@example([one._replace(key="ключ\U0001f511" * 60) for one in chain(40)], 2000)
def test_records_come_back_from_their_frames(records, largest):
    groups = grouped(records, largest)
    back = []
    for group in groups:
        frame = frame_of(group)
        assert len(group) == 1 or len(frame) <= largest + 64
        found = records_in(frame, group[0].partition, OFFSETS)
        assert [one.offset for one in found] == ["log:6"] * (len(group) - 1) + ["log:7"]
        assert all(type(one) is Record and type(one.position) is Position for one in found)
        back += [one._replace(offset="") for one in found]
    for partition in range(3):
        assert [one for one in back if one.partition == partition] == [
            one for one in records if one.partition == partition
        ]


def test_what_follows_each_other_shares_a_frame_up_to_its_bounds():
    assert len(grouped(chain(400))) == 1
    assert 3 <= len(grouped(chain(2300))) <= 6
    assert [len(group) for group in grouped(chain(1500), 2**30)] == [1000, 500]
    large = chain(4)
    large[1] = large[1]._replace(payload=b"x" * 200_000)
    assert [len(group) for group in grouped(large)] == [1, 1, 2]
    assert [len(group) for group in grouped(chain(3), -5)] == [1, 1, 1]
    two = [record._replace(partition=number) for record in chain(5) for number in (1, 2)]
    assert [len(group) for group in grouped(two)] == [5, 5]


def test_what_does_not_follow_begins_another_frame():
    one, two, three = GOOD
    assert grouped([one, three]) == [[one], [three]]
    assert grouped([one, two._replace(nth=9)]) == [[one], [two._replace(nth=9)]]
    later = two._replace(position=Position(8, 2, 1))
    assert grouped([one, later]) == [[one], [later]]
    assert grouped([one, two, one, two]) == [[one, two], [one, two]]


def test_no_event_can_have_the_subject_of_a_frame():
    assert is_frame(f"shop.3.{TOKEN}")
    assert not _WIRE_TYPE.fullmatch(TOKEN)
    assert not is_frame("shop.3.frame")


def damaged():
    """Frames, each with one thing that is not as it should be."""
    whole = msgspec.msgpack.decode(frame_of(GOOD))
    for index, wrong in ((0, 2), (1, -1), (1, 2**32), (2, [1, 2]), (3, -1), (3, "1"), (4, []), (4, None)):  # fmt: skip
        yield [*whole[:index], wrong, *whole[index + 1 :]]
    row = whole[4][1]
    wrongs = [-1, 2**32, 7, b"t", None, "1", "{}", 1.5, "", -1]
    for index, wrong in enumerate(wrongs):
        yield [*whole[:4], [whole[4][0], [*row[:index], wrong, *row[index + 1 :]]]]
    yield [*whole[:4], [row[:-1]]]
    yield [*whole[:4], [[*row, 1]]]
    yield whole[:4]
    yield {}
    yield 7


@pytest.mark.parametrize("frame", list(damaged()))
def test_a_forged_frame_is_refused(frame):
    with pytest.raises(DecodeError, match="is not readside's"):
        records_in(msgspec.msgpack.encode(frame), 3, OFFSETS)


@pytest.mark.parametrize(
    "frame", [b"", b"{}", b"\xdd\xff\xff\xff\xff", frame_of(GOOD)[:-1], frame_of(GOOD) + b"\x00"]
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(DecodeError, match="is not readside's"):
        records_in(frame, 3, OFFSETS)


def test_what_is_too_deep_to_be_looked_at_is_refused():
    """Whoever may write to the stream must not be able to stop who reads it."""
    whole = msgspec.msgpack.encode([*msgspec.msgpack.decode(frame_of(GOOD)), 0])
    assert len(records_in(whole, 3, OFFSETS)) == len(GOOD)
    with pytest.raises(DecodeError, match="is not readside's"):
        records_in(whole[:-1] + b"\x91" * 100_000 + b"\x00", 3, OFFSETS)


@pytest.mark.parametrize("field", ["id", "type", "key"])
def test_a_text_that_is_none_is_refused(field):
    frame = frame_of([one._replace(**{field: "zzzz"}) for one in GOOD])
    with pytest.raises(DecodeError, match="is not readside's"):
        records_in(frame.replace(b"zzzz", b"\xff\xfe\xfd\xfc"), 3, OFFSETS)


def test_more_than_is_known_is_ignored():
    """So that later versions can say more."""
    whole = msgspec.msgpack.decode(frame_of(GOOD))
    assert len(records_in(msgspec.msgpack.encode([*whole, {"more": 1}]), 3, OFFSETS)) == len(GOOD)


@given(st.integers(0, len(frame_of(GOOD)) - 1), st.integers(0, 255))
def test_a_damaged_frame_raises_nothing_but_decode_error(at, byte):
    frame = bytearray(frame_of(GOOD))
    frame[at] = byte
    with suppress(DecodeError):
        for record in records_in(bytes(frame), 3, OFFSETS):
            record.position.encode()


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_nothing_but_decode_error(frame):
    with suppress(DecodeError):
        records_in(frame, 3, OFFSETS)
