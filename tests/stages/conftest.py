"""Worlds in memory and in virtual time: no server, no waiting, and every run the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from readside.testing.truth import differences
from readside.testing.workload import Writer, projections
from readside.testing.world import Shape, World


def check(world: World) -> None:
    """Compare what the store has with what its checkpoints claim."""
    if wrong := differences(world):
        raise AssertionError("\n".join(wrong))


class Story:
    """A world with a writer, watched at every step."""

    def __init__(self, world: World, seed: int, spoil: float) -> None:
        self.world = world
        self.writer = Writer(world, random.Random(seed), spoil=spoil)

    async def write(self, transactions: int = 12, pause: float = 0.3) -> None:
        """Commit transactions with pauses; whatever the store claims meanwhile has to be true."""
        for _ in range(transactions):
            self.writer.commit()
            await self.world.clock.sleep(pause)
            check(self.world)
            await self.world.revive()

    async def in_step(self, patience: float = 120.0) -> None:
        """Wait for everything that was committed so far."""
        await self.world.caught_up(patience)
        check(self.world)

    async def settled(self) -> None:
        """Wait until PostgreSQL has been allowed to forget all of it."""
        await self.in_step()
        async with asyncio.timeout(120):
            while self.world.database.retained:
                await self.world.clock.sleep(0.5)
                self.world.database.checkpoint()

    async def end(self, patience: float = 120.0) -> None:
        """Wait for everything, then a while longer: it has to be there, and to stay."""
        await self.world.caught_up(patience)
        check(self.world)
        for _ in range(3):
            await self.world.clock.sleep(2.5)
            check(self.world)
            await self.world.revive()
        await self.world.caught_up(patience)
        check(self.world)


@asynccontextmanager
async def story(
    shape: Shape | None = None, seed: int = 1, spoil: float = 0.0
) -> AsyncIterator[Story]:
    world = World(projections(), shape)
    try:
        yield Story(world, seed, spoil)
    finally:
        await world.close()


@pytest.fixture(scope="session")
def tell():
    """Makes stories: `async with tell(Shape(...)) as story`."""
    return story


@pytest.fixture(params=[False, True], ids=["log", "direct"])
def direct(request: pytest.FixtureRequest) -> bool:
    """Whether there is no broker."""
    return request.param
