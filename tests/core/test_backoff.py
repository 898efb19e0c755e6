from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.backoff import Backoff

CHANCES = st.lists(st.floats(0, 1, exclude_max=True), max_size=60)


@given(st.floats(0.001, 1), st.floats(1, 100), CHANCES)
def test_pauses_grow_and_stay_below_the_longest(first, longest, chances):
    backoff = Backoff(first, longest)
    for tries, chance in enumerate(chances):
        ceiling = min(longest, first * 2.0 ** min(tries, 16))
        pause = backoff.next(chance)
        assert ceiling / 2 <= pause <= ceiling
        assert backoff.tries == tries + 1


@given(st.floats(0, 1, exclude_max=True), CHANCES)
def test_after_a_success_it_begins_again(chance, chances):
    fresh, used = Backoff(), Backoff()
    for one in chances:
        used.next(one)
    used.reset()
    assert used.next(chance) == fresh.next(chance)


def test_thousands_of_tries_are_no_overflow():
    backoff = Backoff(tries=100_000)
    assert backoff.next(0.999) <= backoff.longest


def test_chance_spreads_those_who_wait_together():
    assert Backoff().next(0.0) < Backoff().next(0.5) < Backoff().next(0.99)
