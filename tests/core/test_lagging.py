from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.lagging import Lagging, Sample, oldest_after, seconds_behind

GAPS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 10**6)), min_size=1, max_size=300)


def noted(gaps, capacity=64):
    lagging, samples = Lagging(capacity), []
    nth = time = 0
    for records, microseconds in gaps:
        nth, time = nth + records, time + microseconds
        samples.append(Sample(nth, time))
        lagging.add(0, samples[-1])
    return lagging.samples[0], samples


@given(GAPS, st.integers(4, 64))
def test_notes_are_bounded_in_order_and_keep_both_ends(gaps, capacity):
    kept, samples = noted(gaps, capacity)
    assert len(kept) <= capacity
    assert kept == sorted(set(kept))
    assert set(kept) <= set(samples)
    assert (kept[0], kept[-1]) == (samples[0], samples[-1])


@given(GAPS, st.data())
def test_lag_is_never_exaggerated_and_never_hidden(gaps, data):
    kept, samples = noted(gaps)
    applied = data.draw(st.integers(0, samples[-1].nth + 1))
    now = samples[-1].recorded_at + data.draw(st.integers(0, 10**7))
    behind = seconds_behind({0: kept}, 0, applied, now, now)
    unapplied = [sample for sample in samples if sample.nth > applied]
    if unapplied:
        assert oldest_after(kept, applied) is not None
        newest, oldest = unapplied[-1].recorded_at, unapplied[0].recorded_at
        assert (now - newest) / 1e6 <= behind <= (now - oldest) / 1e6
    else:
        assert behind == 0
        assert oldest_after(kept, applied) is None


def test_few_notes_are_exact():
    kept, _ = noted([(1, 10**6)] * 5)
    assert seconds_behind({0: kept}, 0, 2, 10 * 10**6, 10 * 10**6) == 7.0


def test_a_partition_without_notes_and_a_clock_that_went_back_show_no_lag():
    assert seconds_behind({}, 3, 0, 5, 5) == 0.0
    assert seconds_behind({}, 3, 0, 5 * 10**6, 2 * 10**6) == 3.0
    assert seconds_behind({0: [Sample(1, 100)]}, 0, 0, 50, 50) == 0.0
