from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.heartbeat import LATEST, SOONEST, TIMES, Heartbeats

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
    waiting = dict.fromkeys(range(3), 0)
    for passed, touched, settled in steps:
        now += passed
        for partition in touched:
            heartbeats.touched(partition)
        waiting |= dict.fromkeys(touched, TIMES)
        due = heartbeats.due(now, settled=settled)
        for partition in range(3):
            silent = now - said[partition]
            if partition in due:
                assert silent >= (SOONEST if settled and waiting[partition] else LATEST)
                said[partition] = now
                waiting[partition] = max(0, waiting[partition] - settled)
            else:
                assert silent < LATEST
                assert not (settled and waiting[partition] and silent >= SOONEST)
        assert heartbeats.pending is any(waiting.values())


def test_a_watermark_before_the_source_has_settled_is_not_the_last_word():
    heartbeats = Heartbeats(1)
    heartbeats.due(1000.0, settled=True)
    heartbeats.touched(0)
    assert heartbeats.due(1000.0 + LATEST, settled=False) == [0]
    assert heartbeats.pending
    for number in range(1, TIMES + 1):
        assert heartbeats.pending
        assert heartbeats.due(1000.0 + LATEST + SOONEST * 2 * number, settled=True) == [0]
    assert not heartbeats.pending


def test_an_untouched_partition_is_told_every_second():
    heartbeats = Heartbeats(1)
    told = [now for now in range(1000, 1010) if heartbeats.due(float(now), settled=True)]
    assert told == list(range(1000, 1010))
