from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.durability import Durability
from readside.core.position import BEGINNING, Position


def at(lsn: int) -> Position:
    return Position(1, lsn, 0)


def test_only_a_look_after_the_delay_tells():
    durability = Durability(5.0)
    durability.went_to(at(10), 100.0)
    assert durability.seen(104.9) == BEGINNING
    durability.went_to(at(20), 104.9)
    assert durability.seen(105.0) == at(10)
    assert durability.seen(109.8) == at(10)
    assert durability.seen(1000.0) == at(20)


def test_without_a_look_nothing_becomes_durable_however_long_it_takes():
    durability = Durability(5.0)
    durability.went_to(at(10), 0.0)
    durability.went_to(at(20), 1_000_000.0)
    assert durability.position == BEGINNING


def test_what_a_store_gives_at_once_is_durable_at_once():
    durability = Durability(0.0)
    durability.went_to(at(10), 3.0)
    assert durability.seen(3.0) == at(10)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300), st.floats(0.1, 10))
def test_never_too_early_and_not_much_too_late(moves: list[tuple[float, bool]], delay: float):
    durability, now, history = Durability(delay), 0.0, [(0.0, BEGINNING)]
    for number, (pause, goes) in enumerate(moves, 1):
        now += pause
        if goes:
            durability.went_to(at(number), now)
            history.append((now, at(number)))
        durable = durability.seen(now)
        assert durable <= max(p for t, p in history if t <= now - delay or p == BEGINNING)
        assert durable >= max(p for t, p in history if t < now - delay * 1.2 or p == BEGINNING)
    assert len(durability._noted) <= 40
