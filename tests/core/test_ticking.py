"""The rule of polling: batches between snapshots, and the pace."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DecodeError
from readside.core.ticking import FOLLOWING, LATEST, QUIET, SOONEST, Pace, Snapshot, between

#: What happens in a database: a transaction begins, one of those open ends, somebody looks.
STEPS = st.lists(
    st.one_of(
        st.just(("begin", 0)), st.tuples(st.just("end"), st.integers(0, 9)), st.just(("tick", 0))
    ),
    max_size=60,
)


def play(steps):
    """Yield (snapshot, ended so far) at each tick."""
    following, running, ended = 100, [], set()
    ticks = []
    for step, which in [*steps, ("tick", 0)]:
        if step == "begin":
            running.append(following)
            following += 1
        elif step == "end" and running:
            ended.add(running.pop(which % len(running)))
        elif step == "tick":
            # As PostgreSQL counts: from the newest that has ended.
            xmax = max(ended, default=99) + 1
            xmin = min([xid for xid in running if xid < xmax], default=xmax)
            snapshot = Snapshot(xmin, xmax, frozenset(x for x in running if x < xmax))
            ticks.append((snapshot, frozenset(ended)))
    return ticks


@given(STEPS)
def test_every_transaction_that_ended_is_in_exactly_one_batch(steps):
    ticks = [(Snapshot(100, 100, frozenset()), frozenset()), *play(steps)]
    for (older, before), (newer, after) in itertools.pairwise(ticks):
        batch = between(older, newer)
        assert {xid for xid in range(90, 200) if batch.has(xid)} == after - before
        assert all(newer.sees(xid) for xid in after)
        assert not set(batch.late) & set(range(batch.first, batch.end))


@given(STEPS)
def test_ticks_may_be_left_out_and_batches_add_up(steps):
    ticks = play(steps)
    first, last = ticks[0][0], ticks[-1][0]
    whole = {xid for xid in range(90, 200) if between(first, last).has(xid)}
    parts = [between(a, b) for (a, _), (b, _) in itertools.pairwise(ticks)]
    assert whole == {xid for xid in range(90, 200) for part in parts if part.has(xid)}


def test_a_snapshot_is_read_as_postgres_writes_it():
    assert Snapshot.parse("10:20:10,14,15") == Snapshot(10, 20, frozenset({10, 14, 15}))
    assert Snapshot.parse("10:10:") == Snapshot(10, 10, frozenset())


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:b:", "1:2:x"])
def test_what_is_no_snapshot_is_refused(text):
    with pytest.raises(DecodeError):
        Snapshot.parse(text)


def test_a_lower_transaction_that_ends_later_is_late_and_not_lost():
    older, newer = Snapshot.parse("10:13:10"), Snapshot.parse("14:14:")
    assert between(older, newer) == (13, 14, (), (10,))


def test_one_that_stays_open_holds_nothing_up():
    older, newer = Snapshot.parse("10:13:10"), Snapshot.parse("10:99:10,97")
    batch = between(older, newer)
    assert not batch.has(10)
    assert not batch.has(97)
    assert all(batch.has(xid) for xid in range(13, 97))


def test_looks_become_rarer_until_something_comes():
    pace = Pace()
    pauses = [pace.pause() for _ in range(50)]
    assert pauses[0] == SOONEST
    assert pauses == sorted(pauses)
    assert pauses[-1] == LATEST
    pace.ticked(0.0, events=True)
    assert pace.pause() == SOONEST


def test_after_events_two_more_ticks_are_due_then_one_in_a_while():
    pace = Pace()
    assert pace.due(5.0)
    pace.ticked(5.0, events=True)
    for _ in range(FOLLOWING):
        assert pace.due(5.0)
        pace.ticked(5.0, events=False)
    assert not pace.due(5.0 + QUIET / 2)
    assert pace.due(5.0 + QUIET)
