from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.history import Known, Seen, restarted
from readside.core.position import BEGINNING, Position

KNOWN = Known(7, "cluster", timeline=3, confirmed_lsn=1000, shipped_lsn=2000)
SEEN = Seen("cluster", 3, None, 3000, slot_exists=True, slot_confirmed_lsn=900, slot_lost="")
NEWEST = Position(7, 1990, 3)


def seen(**changes):
    return SEEN._replace(**changes)


GOES_ON = {
    "as it was left": (KNOWN, NEWEST, SEEN),
    "an empty broker": (KNOWN, BEGINNING, SEEN),
    "a broker of an earlier history": (KNOWN, Position(6, 99_999, 1), SEEN),
    "a slot that was never read": (KNOWN, NEWEST, seen(slot_confirmed_lsn=None)),
    "a slot that went back, as after a crash": (KNOWN, NEWEST, seen(slot_confirmed_lsn=1)),
    "a slot exactly where it was confirmed": (KNOWN, NEWEST, seen(slot_confirmed_lsn=1000)),
    "a log that ends where it was shipped": (KNOWN, NEWEST, seen(flushed_lsn=2000)),
    "a failover that lost nothing": (KNOWN, NEWEST, seen(timeline=4, left_at=2000)),
    "a log that ends with the broker's last": (KNOWN, Position(7, 3000, 1), SEEN),
}

RESTARTED = {
    "another cluster": (KNOWN, NEWEST, seen(system_identifier="new"), "another cluster"),
    "a dropped slot": (KNOWN, NEWEST, seen(slot_exists=False), "slot is gone"),
    "a lost slot": (KNOWN, NEWEST, seen(slot_lost="wal_removed"), "invalidated (wal_removed)"),
    "restored with its notes, the broker knows more": (
        KNOWN._replace(epoch=6),
        NEWEST,
        SEEN,
        "later history",
    ),
    "restored to before the broker's last record": (
        KNOWN._replace(shipped_lsn=500, confirmed_lsn=400),
        NEWEST,
        seen(flushed_lsn=600),
        "after the end of the database's log",
    ),
    "the log ends before what was shipped": (
        KNOWN,
        BEGINNING,
        seen(flushed_lsn=1999),
        "earlier state",
    ),
    "the log ends before what was confirmed": (
        KNOWN._replace(shipped_lsn=0),
        BEGINNING,
        seen(flushed_lsn=999),
        "earlier state",
    ),
    "a failover that lost what was shipped": (
        KNOWN,
        NEWEST,
        seen(timeline=4, left_at=1999, flushed_lsn=9000),
        "lost in a failover",
    ),
    "a failover that lost what only the broker knows": (
        KNOWN._replace(shipped_lsn=1500),
        NEWEST,
        seen(timeline=4, left_at=1600, flushed_lsn=9000),
        "lost in a failover",
    ),
    "back on an earlier timeline": (KNOWN, NEWEST, seen(timeline=2), "earlier timeline"),
    "a slot created anew, or advanced by hand": (
        KNOWN,
        NEWEST,
        seen(slot_confirmed_lsn=1001),
        "advanced or re-created",
    ),
}


@pytest.mark.parametrize("case", GOES_ON)
def test_the_history_goes_on(case):
    assert restarted(*GOES_ON[case]) == ""


@pytest.mark.parametrize("case", RESTARTED)
def test_the_history_has_restarted(case):
    known, newest, now, reason = RESTARTED[case]
    assert reason in restarted(known, newest, now)


@given(
    st.builds(
        Known, st.just(7), st.just("cluster"), st.just(3), st.integers(0, 50), st.integers(0, 50)
    ),
    st.builds(Position, st.integers(5, 9), st.integers(0, 50), st.integers(0, 3)),
    st.builds(
        Seen,
        st.sampled_from(["cluster", "other"]),
        st.integers(2, 4),
        st.none() | st.integers(0, 50),
        st.integers(0, 50),
        st.booleans(),
        st.none() | st.integers(0, 50),
        st.sampled_from(["", "rows_removed"]),
    ),
)
def test_it_goes_on_only_where_nothing_can_be_missing(known, newest, now):
    if restarted(known, newest, now) == "":
        assert now.slot_exists
        assert not now.slot_lost
        assert now.system_identifier == known.system_identifier
        # The slot still has all that follows the bookmark, and the log all that was ever shipped.
        assert (now.slot_confirmed_lsn or 0) <= known.confirmed_lsn <= now.flushed_lsn
        assert known.shipped_lsn <= now.flushed_lsn
        shipped = max(known.shipped_lsn, newest.lsn if newest.epoch == known.epoch else 0)
        assert now.left_at is None or now.left_at >= shipped
        assert newest <= Position(known.epoch, now.flushed_lsn, 2**32)
