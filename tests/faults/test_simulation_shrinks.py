"""Stories of the simulation that fail are made small: by Hypothesis where it draws, and by ``--shrink``."""

from __future__ import annotations

import json

import hypothesis.strategies as st
from chaos.simulation.command import main
from chaos.simulation.plan import Plan, plan
from chaos.simulation.shrinking import smallest
from chaos.simulation.story import Outcome, simulate
from hypothesis import HealthCheck, find, given, settings


@st.composite
def drawn_plans(draw: st.DrawFn) -> tuple[int, Plan]:
    """A seed and a part of its plan: what is allowed together is so in every part of it."""
    seed = draw(st.integers(0, 10_000))
    whole = plan(seed)
    faults = draw(st.lists(st.sampled_from(whole.faults), unique=True)) if whole.faults else []
    rounds = draw(st.integers(1, whole.rounds))
    return seed, whole._replace(faults=tuple(sorted(faults)), rounds=rounds)


@given(drawn_plans())
@settings(
    max_examples=60, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_no_part_of_a_plan_breaks_an_invariant(drawn: tuple[int, Plan]) -> None:
    outcome = simulate(*drawn)
    assert not outcome.failed, (outcome.problems, outcome.did)


def _kills(outcome: Outcome) -> int:
    return outcome.faults["kill"]


def test_hypothesis_leaves_what_matters() -> None:
    wanted = settings(max_examples=2000, derandomize=True, database=None)
    _, small = find(drawn_plans(), lambda drawn: _kills(simulate(*drawn)) > 0, settings=wanted)
    assert small.faults == ("kill",)


def test_the_smallest_plan_has_only_what_it_needs_to_fail() -> None:
    seed = next(n for n in range(1000) if _kills(simulate(n)) > 2 and len(plan(n).faults) > 5)
    small = smallest(plan(seed), lambda smaller: _kills(simulate(seed, smaller)) > 1)
    assert _kills(simulate(seed, small)) > 1
    assert small.faults == ("kill",)
    assert small.rounds < plan(seed).rounds
    assert len(small.projections) == 1
    assert (small.rate, small.spoil, small.deadly, small.shape.partitions) == (0.0, 0.0, 0.0, 1)


def test_a_seed_that_does_not_fail_stays_whole(capsys) -> None:
    assert main(["--seed", "3", "--shrink"]) == 0
    said = capsys.readouterr().out
    assert "seed 3 does not fail" in said
    assert f"rounds       {plan(3).rounds}\n" in said
    assert json.loads(said.splitlines()[-1])["failed"] == []
