from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from readside.core.batching import Limits


def test_a_batch_holds_some_of_the_largest_events():
    limits = Limits()
    assert limits.records > 1
    assert limits.size > 1_000_000


@given(st.integers(1, 1000), st.integers(1, 5000), st.integers(1, 10**8))
def test_many_readers_share_what_eight_would_have(readers, records, size):
    limits = Limits(records, size)
    each = limits.shared(readers)
    assert 1 <= each.records <= records
    assert 1 <= each.size <= size
    assert readers > 8 or each == limits
    # Beyond the smallest batch that is worth a round trip, together they have no more.
    assert each.records <= 200 or each.records * readers <= 8 * records or readers <= 8
    assert each.size <= 256 * 1024 or each.size * readers <= 8 * size or readers <= 8
