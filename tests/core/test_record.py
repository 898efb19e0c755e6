from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readside.core.errors import DecodeError
from readside.core.position import Position
from readside.core.record import Checkpoint

POSITIONS = st.builds(
    Position, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
)
CHECKPOINTS = st.builds(
    Checkpoint, POSITIONS, st.integers(0, 2**63), st.text(max_size=40), st.integers(0, 10**14)
)


@given(CHECKPOINTS)
@example(Checkpoint(Position(1, 2, 3), 4, "2024-02-29 12:00:00+00:00:17", 5))  # as of NATS
@example(Checkpoint(Position(1, 2, 3), 4, "  ", 5))
def test_a_checkpoint_comes_back_from_its_text(checkpoint):
    assert Checkpoint.decode(checkpoint.encode()) == checkpoint


@given(CHECKPOINTS, CHECKPOINTS)
def test_equal_checkpoints_have_equal_texts_and_others_do_not(one, other):
    assert (one == other) == (one.encode() == other.encode())


@given(CHECKPOINTS, st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_the_token_decides_the_order_of_texts(checkpoint, one, other):
    texts = [checkpoint._replace(token=token).encode() for token in (one, other)]
    assert (texts[0] < texts[1]) == (one < other)


@pytest.mark.parametrize("text", ["", "x", "1 2 3", "1 2 3 4", "a b c d e", " " * 10])
def test_a_damaged_checkpoint_is_refused(text):
    with pytest.raises(DecodeError):
        Checkpoint.decode(text)
