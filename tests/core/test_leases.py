from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.leases import Plan, Unit, plan

NAMES = st.sampled_from(["ann", "bob", "cat", "dan", "eve"])
UNITS = st.integers(0, 20).map(
    lambda count: [Unit("order" if number % 3 else "user", number) for number in range(count)]
)


@st.composite
def situations(draw):
    """Any table of leases, also one that nobody would have planned, and who is alive."""
    crew = sorted(draw(st.sets(NAMES, min_size=1)))
    owners = st.none() | st.sampled_from(crew)
    return crew, {unit: draw(owners) for unit in draw(UNITS)}


def act(worker, crew, leases):
    """What adapters do in one transaction; a unit that somebody owns is never taken."""
    decided = plan(worker, crew, leases)
    after = dict(leases)
    for unit in decided.release:
        assert after[unit] == worker
        after[unit] = None
    for unit in decided.acquire:
        assert after[unit] is None
        after[unit] = worker
    return after, decided


def settle(crew, leases, order):
    """Workers act in any order until nobody has anything to do; returns the table and the moves."""
    released, rounds = 0, 0
    while any(plan(worker, crew, leases) != Plan((), ()) for worker in crew):
        rounds += 1
        assert rounds <= 3, "no end"
        for worker in order(crew):
            leases, decided = act(worker, crew, leases)
            released += len(decided.release)
    return leases, released


def fewest(crew, leases):
    """Units that must change hands so that all shares are within one: those above the largest shares."""
    base, extra = divmod(len(leases), len(crew))
    owned = sorted((list(leases.values()).count(worker) for worker in crew), reverse=True)
    return sum(
        max(0, count - base - (1 if rank < extra else 0)) for rank, count in enumerate(owned)
    )


@given(situations(), st.randoms(use_true_random=False))
def test_it_converges_to_fair_shares_and_moves_no_unit_in_vain(situation, random):
    crew, leases = situation
    least = fewest(crew, leases)
    after, released = settle(crew, leases, lambda names: random.sample(names, len(names)))
    counts = [list(after.values()).count(worker) for worker in crew]
    assert None not in after.values()
    assert max(counts) - min(counts) <= 1
    assert released == least


@given(situations(), NAMES, st.randoms(use_true_random=False))
def test_one_that_joins_gets_a_fair_share_and_the_others_keep_the_rest(situation, newcomer, random):
    crew, leases = situation
    before, _ = settle(crew, leases, list)
    larger = sorted({*crew, newcomer})
    after, released = settle(larger, before, lambda names: random.sample(names, len(names)))
    moved = [unit for unit in before if before[unit] != after[unit]]
    assert len(moved) == released
    if newcomer not in crew:
        assert all(after[unit] == newcomer for unit in moved)
        assert len(moved) == len(before) // len(larger)


@given(situations(), st.randoms(use_true_random=False))
def test_what_one_that_leaves_had_is_shared_and_nothing_else_moves(situation, random):
    crew, leases = situation
    before, _ = settle(crew, leases, list)
    gone = random.choice(crew)
    rest = [worker for worker in crew if worker != gone]
    if not rest:
        return
    freed = {unit: None if owner == gone else owner for unit, owner in before.items()}
    after, released = settle(rest, freed, lambda names: random.sample(names, len(names)))
    assert released == 0
    assert all(after[unit] == owner for unit, owner in freed.items() if owner is not None)


@given(situations())
def test_from_one_view_no_two_plans_give_away_more_than_there_is(situation):
    crew, leases = situation
    plans = {worker: plan(worker, crew, leases) for worker in crew}
    for worker, decided in plans.items():
        assert all(leases[unit] is None for unit in decided.acquire)
        assert all(leases[unit] == worker for unit in decided.release)
        assert not (decided.acquire and decided.release)


def test_the_one_that_asks_is_alive_even_if_the_list_is_older():
    free = {Unit("user", number): None for number in range(2)}
    assert plan("bob", ["ann"], free) == Plan((Unit("user", 0),), ())


def test_the_owner_of_the_remainder_keeps_it():
    units = [Unit("user", number) for number in range(3)]
    leases = dict(zip(units, ["ann", "bob", "bob"], strict=True))
    assert plan("ann", ["ann", "bob"], leases) == Plan((), ())
    assert plan("bob", ["ann", "bob"], leases) == Plan((), ())
