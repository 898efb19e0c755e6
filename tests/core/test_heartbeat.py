from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.heartbeat import LATEST, SOONEST, Heartbeats

STEPS = st.lists(
    st.tuples(
        st.floats(0.0005, 0.5), st.sets(st.integers(0, 2)), st.booleans()
    ),  # seconds passed, partitions touched, settled
    max_size=60,
)


@given(STEPS)
def test_never_too_often_never_too_late(steps):
    heartbeats = Heartbeats(3)
    now = 1000.0
    said = dict.fromkeys(heartbeats.due(now, settled=True), now)
    assert sorted(said) == [0, 1, 2]
    waiting = set()
    for passed, touched, settled in steps:
        now += passed
        for partition in touched:
            heartbeats.touched(partition)
        waiting |= touched
        due = heartbeats.due(now, settled=settled)
        for partition in range(3):
            silent = now - said[partition]
            if partition in due:
                assert silent >= (SOONEST if settled and partition in waiting else LATEST)
                said[partition] = now
                waiting -= {partition} if settled else set()
            else:
                assert silent < LATEST
                assert not (settled and partition in waiting and silent >= SOONEST)
        assert heartbeats.pending is bool(waiting)


def test_a_watermark_before_the_source_has_settled_is_not_the_last_word():
    heartbeats = Heartbeats(1)
    heartbeats.due(1000.0, settled=True)
    heartbeats.touched(0)
    assert heartbeats.due(1000.0 + LATEST, settled=False) == [0]
    assert heartbeats.pending
    assert heartbeats.due(1000.0 + LATEST + SOONEST * 2, settled=True) == [0]
    assert not heartbeats.pending


def test_an_untouched_partition_is_told_every_second():
    heartbeats = Heartbeats(1)
    told = [now for now in range(1000, 1010) if heartbeats.due(float(now), settled=True)]
    assert told == list(range(1000, 1010))
