from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DecodeError
from readside.core.position import BEGINNING, WIDTH, Position, format_lsn, parse_lsn, settled

POSITIONS = st.builds(
    Position,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}")


@given(POSITIONS)
def test_a_position_comes_back_from_its_text(position):
    text = position.encode()
    assert len(text) == WIDTH
    assert Position.decode(text) == position


@given(POSITIONS, POSITIONS)
def test_the_order_of_texts_is_the_order_of_positions(one, other):
    assert (one < other) == (one.encode() < other.encode())
    assert (one == other) == (one.encode() == other.encode())


@given(POSITIONS, st.data())
def test_neighbours_keep_their_order(position, data):
    field = data.draw(st.sampled_from(["epoch", "lsn", "ordinal"]))
    value = getattr(position, field)
    if value:
        less = position._replace(**{field: value - 1})
        assert less.encode() < position.encode()


@given(
    st.one_of(
        st.text(max_size=40),
        st.text("0123456789abcdefABCDEFx-+_ ", min_size=WIDTH, max_size=WIDTH),
    )
)
def test_only_what_encode_can_write_is_read(text):
    if SHAPE.fullmatch(text):
        assert Position.decode(text).encode() == text
    else:
        with pytest.raises(DecodeError, match="is not a position"):
            Position.decode(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x000001-0000000000000001-00000001",
        " 0000001-0000000000000001-00000001",
        "-0000001-0000000000000001-00000001",
        "+0000001-0000000000000001-00000001",
        "1_000001-0000000000000001-00000001",
        "0000000A-0000000000000001-00000001",
        "00000001-0000000000000001-0000000\n",
        "00000001-0000000000000001-00000001\n",
        "00000001:0000000000000001:00000001",
        "0000000١-0000000000000001-00000001",  # noqa: RUF001 - a digit to int(), not to us
    ],
)
def test_what_python_takes_for_a_number_is_still_no_position(text):
    with pytest.raises(DecodeError):
        Position.decode(text)


@given(st.integers(0, 2**64 - 1))
def test_an_lsn_comes_back_from_postgresqls_notation(lsn):
    assert parse_lsn(format_lsn(lsn)) == lsn


def test_postgresqls_notation():
    assert format_lsn(0x16B374D848) == "16/B374D848"
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert parse_lsn("0/0") == 0
    assert str(Position(3, 0x16B374D848, 2)) == "3:16/B374D848:2"


@given(POSITIONS)
def test_nothing_is_before_the_beginning(position):
    assert position >= BEGINNING


@given(POSITIONS)
def test_a_settled_consumer_stands_before_the_records_of_the_next_commit(position):
    assert settled(position.epoch, position.lsn) <= position
    if position.lsn:
        assert settled(position.epoch, position.lsn) > position._replace(lsn=position.lsn - 1)
