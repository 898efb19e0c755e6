"""Die at every moment that there is, once and twice, start again, and be in step all the same."""

from __future__ import annotations

import asyncio
import random

import pytest

from readside.ports.probe import listening
from readside.testing.clock import run
from readside.testing.moments import DieAt, Recorder
from readside.testing.workload import Writer, projections
from readside.testing.world import Shape, World

KINDS = {
    "log": Shape(),
    "direct": Shape(direct=True),
    "chunks": Shape(chunk=2, stutter=True),
    "piecemeal": Shape(piecemeal=True),
}
#: How often a moment is passed before the death, at most.
MOST = {"log": 3, "direct": 3, "chunks": 2, "piecemeal": 1}
PAIRS = 90


class TwoDeaths:
    """The second death counts from the first on."""

    def __init__(self, world, deaths):
        self.deaths = [DieAt(moment, nth, world.die) for moment, nth in deaths]

    def __call__(self, moment):
        for death in self.deaths:
            if not death.happened:
                death(moment)
                return

    @property
    def died(self):
        return sum(death.happened for death in self.deaths)


async def live(tell, shape, deaths):
    async with tell(shape, spoil=0.05) as story:
        death = TwoDeaths(story.world, deaths)
        with listening(death):
            story.world.start()
            await story.write(10, 0.35)
            await story.end()
        return death.died


def moments(shape):
    """Every moment of an undisturbed run, found out by running it."""
    recorder = Recorder()

    async def undisturbed():
        world = World(projections(), shape)
        writer = Writer(world, random.Random(1), spoil=0.05)
        world.start()
        for _ in range(10):
            writer.commit()
            await asyncio.sleep(0.35)
        await world.caught_up()
        await world.close()

    with listening(recorder):
        run(undisturbed())
    return recorder


SEEN = {name: moments(shape) for name, shape in KINDS.items()}


def pairs():
    chance = random.Random(7)
    for _ in range(PAIRS):
        kind = chance.choice(list(KINDS))
        deaths = SEEN[kind].deaths(3)
        yield kind, chance.choice(deaths), chance.choice(deaths)


def test_the_moments_are_known():
    """Whoever adds a moment to the flow lets it be died at: it has to be passed in these runs."""
    assert set(SEEN["log"].passed) >= {
        "relay.started", "relay.taken", "relay.published", "relay.announced", "relay.confirmed",
        "relay.settled", "projector.claimed", "projector.subscribed", "projector.loaded",
        "projector.folded", "projector.parked", "projector.applied", "projector.moved_on",
        "projector.conflict",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "moment", "nth"),
    [(kind, *death) for kind, seen in SEEN.items() for death in seen.deaths(MOST[kind])],
)
def test_dying_once_changes_nothing(tell, kind, moment, nth):
    assert run(live(tell, KINDS[kind], [(moment, nth)])) == 1


@pytest.mark.parametrize(("kind", "first", "second"), list(pairs()))
def test_dying_twice_changes_nothing(tell, kind, first, second):
    assert run(live(tell, KINDS[kind], [first, second])) >= 1
