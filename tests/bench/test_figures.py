from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.apps.bench.figures import Spread, percentile, percentiles, ratios
from readside.apps.bench.watcher import Sight, readable_at


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_a_percentile_has_its_share_at_or_below_it_and_is_the_smallest_such(values, share):
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) * (1 - 1e-9)
    below = [value for value in ordered if value < found]
    assert len(below) < share * len(values) * (1 + 1e-9)


def test_the_percentiles_of_a_thousand():
    found = percentiles([n / 1000 for n in range(1, 1001)], 1000)
    assert found == {"p50": 500.0, "p90": 900.0, "p99": 990.0, "p99_9": 999.0}


def test_nothing_has_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_spread_and_ratios_are_of_the_same_rounds():
    assert Spread.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert ratios([10.0, 30.0], [20.0, 40.0]) == [0.5, 0.75]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_a_record_is_readable_from_the_first_sight_that_has_it():
    sights = [Sight(1.0, {0: 1}), Sight(2.0, {0: 1, 1: 4}), Sight(3.0, {0: 3, 1: 4})]
    assert readable_at(sights, 0, 3) == [1.0, 3.0, 3.0]
    assert readable_at(sights, 1, 4) == [2.0] * 4
    assert readable_at(sights, 2, 0) == []
