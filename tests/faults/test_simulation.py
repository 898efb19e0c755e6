"""The simulation itself: it is the same every time, and the story with every death is told."""

from __future__ import annotations

import asyncio
import random

import pytest
from chaos.simulation.every_death import tell
from chaos.simulation.operator import Operator
from chaos.simulation.plan import plan
from chaos.simulation.story import simulate
from chaos.simulation.workers import outcomes

from readside.testing.clock import run
from readside.testing.workload import Writer, projections
from readside.testing.world import Shape, World

SEEDS = range(1, 31)


@pytest.fixture(scope="module")
def alone():
    return [simulate(seed) for seed in SEEDS]


def test_no_invariant_is_broken(alone):
    assert [outcome.problems for outcome in alone if outcome.failed] == []
    assert sum(outcome.faults.total() for outcome in alone) > 0


def test_the_number_of_jobs_makes_no_difference(alone):
    assert list(outcomes(SEEDS, jobs=2)) == alone


def test_every_kind_of_fault_is_drawn_by_some_seed():
    drawn = {fault for seed in range(1, 400) for fault in plan(seed).faults}
    assert drawn >= {
        "slot_lost", "slot_dropped", "slot_advanced", "database_restored", "machine_restored",
        "database_moved", "failover", "clock_back", "retry", "discard", "deploy", "give_up", "store_wiped",
    }  # fmt: skip


def test_a_death_at_every_boundary_changes_nothing():
    """Of the story without a broker; ``--every-death`` tells the others too."""
    shape = Shape(direct=True)
    undisturbed = tell(shape, None)
    assert not undisturbed.problems
    assert any(place.startswith("operator before") for place in undisturbed.passed)
    for number in range(1, len(undisturbed.passed) + 1):
        told = tell(shape, number)
        assert told.passed[:number] == undisturbed.passed[:number]
        assert not told.problems, (number, undisturbed.passed[number - 1])


class _SlowConfirm:
    """Holds one confirmation of the relay back, as a frozen process does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.armed = False
        self.held = asyncio.Event()

    async def before(self, call: str) -> None:
        if call == "ledger.confirm" and self.armed:
            self.armed = False
            self.held.set()
            await asyncio.sleep(self._seconds)

    async def after(self, call: str) -> None:
        pass


@pytest.mark.parametrize("seconds", [0.5, 3.0, 30.0])
def test_a_late_confirmation_takes_nothing_from_a_projection_that_began_again(seconds):
    async def story():
        gate = _SlowConfirm(seconds)
        world = World(projections(), Shape(direct=True, partitions=1, settle_delay=0.2), gate)
        world.start()
        writer = Writer(world, random.Random(1), spoil=0)
        for _ in range(6):
            writer.commit(4)
            await asyncio.sleep(0.3)
        gate.armed = True
        writer.commit(4)
        await gate.held.wait()
        operator = Operator(world, "operator")
        operator.start(lambda: operator.give_up(min(world.projections)))
        await operator.wait(60)
        for _ in range(6):
            writer.commit(4)
            await asyncio.sleep(1)
        await world.caught_up(60)
        assert not any(world.library.shelves.halted.values())
        await world.close()

    run(story())
