from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.chain import Head
from readside.core.position import Position
from readside.core.settling import Bookmark, Settling

HEADS = (Head(Position(1, 0, 0), 0),)
START = Bookmark(100, HEADS)

#: A relay's life: bookmarks, surveys, and now and then the bound on retained WAL.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), st.integers(0, 60)),
        st.tuples(st.just("settle"), st.none() | st.integers(0, 3000)),
    ),
    max_size=80,
)


def heads_at(lsn):
    return (Head(Position(1, lsn, 1), lsn),)


@given(STEPS, st.integers(2, 8))
def test_it_never_confirms_past_the_lowest_applied_and_never_goes_back(steps, capacity):
    settling = Settling(START, capacity)
    lsn = confirmed = START.lsn
    highest_applied = 0
    for act, value in steps:
        if act == "mark":
            lsn += value
            settling.mark(lsn, heads_at(lsn))
            assert settling.shipped.lsn == lsn
        else:
            applied = None if value is None else Position(1, value, 1)
            found = settling.settle(applied)
            highest_applied = max(highest_applied, value or 0)
            if found is not None:
                assert applied is not None
                assert found.lsn <= applied.lsn
                assert found.lsn > confirmed
                assert found.heads == heads_at(found.lsn)
                assert found == settling.confirmed
        assert confirmed <= settling.confirmed.lsn <= max(START.lsn, highest_applied)
        assert settling.confirmed.lsn <= settling.shipped.lsn
        confirmed = settling.confirmed.lsn


@given(st.integers(2, 12), st.integers(0, 200))
def test_it_is_bounded_and_keeps_both_ends(capacity, marks):
    settling = Settling(START, capacity)
    for number in range(1, marks + 1):
        settling.mark(100 + number, heads_at(100 + number))
        assert len(settling._bookmarks) <= capacity
        assert settling.confirmed == START
        assert settling.shipped.lsn == 100 + number
        lsns = [bookmark.lsn for bookmark in settling._bookmarks]
        assert lsns == sorted(set(lsns))


@given(st.integers(2, 12), st.integers(1, 200))
def test_however_coarse_everything_applied_is_everything_confirmed(capacity, marks):
    settling = Settling(START, capacity)
    for number in range(1, marks + 1):
        settling.mark(100 + number, heads_at(100 + number))
    assert settling.settle(Position(1, 100 + marks, 0)) == settling.shipped == settling.confirmed


def test_nothing_is_forgotten_while_a_projection_has_never_started():
    settling = Settling(START)
    settling.mark(200, heads_at(200))
    assert settling.settle(None) is None
    assert settling.confirmed == START


def test_an_applied_record_inside_the_last_transaction_confirms_what_is_before_it():
    settling = Settling(START)
    settling.mark(200, heads_at(200))
    assert settling.settle(Position(1, 199, 7)) is None
    assert settling.settle(Position(1, 200, 0)).lsn == 200


def test_a_mark_that_is_not_further_changes_nothing():
    settling = Settling(START)
    settling.mark(100, heads_at(100))
    settling.mark(50, heads_at(50))
    assert settling.shipped == START


def test_force_confirms_what_was_shipped_once():
    settling = Settling(START)
    assert settling.force() is None
    settling.mark(200, heads_at(200))
    settling.mark(300, heads_at(300))
    assert settling.force() == Bookmark(300, heads_at(300)) == settling.confirmed
    assert settling.force() is None
