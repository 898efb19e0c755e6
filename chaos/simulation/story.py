"""One run: write, strike, look; then let everything heal, and compare."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from typing import NamedTuple

from chaos.simulation.nemesis import Deploy, Nemesis
from chaos.simulation.network import Network
from chaos.simulation.operator import Operator, persist
from chaos.simulation.plan import Plan, plan
from chaos.simulation.verdict import Verdict, judge
from readside.ports.probe import listening
from readside.testing.clock import run
from readside.testing.truth import differences
from readside.testing.workload import Writer, projections
from readside.testing.world import World

#: Virtual seconds after the last fault in which everything has to be in step again.
_HEAL = 300.0
#: Virtual seconds after which people look whether a projection that they began again is well.
_LOOKED_AGAIN = 10.0


class Outcome(NamedTuple):
    """What became of a run."""

    seed: int
    events: int
    faults: Counter[str]
    virtual_seconds: float
    verdict: Verdict
    #: Wrong at some moment during the run, or never in step again; empty where all is well.
    problems: list[str]
    #: What was done, and when.
    did: list[str]
    #: The same for the same seed, on every machine.
    digest: str

    @property
    def failed(self) -> bool:
        """Whether an invariant was broken."""
        return bool(self.problems) or any(self.verdict)


def simulate(seed: int, drawn: Plan | None = None) -> Outcome:
    """Run a seed, by its own plan if there is no other."""
    return run(_Story(seed, drawn or plan(seed)).live())


class _Story:
    def __init__(self, seed: int, drawn: Plan) -> None:
        self._seed = seed
        self._plan = drawn
        self._chance = random.Random(f"story {seed}")
        self._problems: list[str] = []

    async def live(self) -> Outcome:
        drawn = self._plan
        network = Network(
            random.Random(f"network {self._seed}"),
            drawn.faults,
            drawn.rate,
            direct=drawn.shape.direct,
        )
        deploy = Deploy(random.Random(f"deploy {self._seed}"))
        every = projections(lambda: deploy.mended, deploy.fatal)
        world = World({name: every[name] for name in drawn.projections}, drawn.shape, network)
        chance = random.Random(f"nemesis {self._seed}")
        nemesis = Nemesis(world, chance, drawn.faults, deploy)
        writer = Writer(
            world,
            random.Random(f"writer {self._seed}"),
            spoil=drawn.spoil,
            deadly=drawn.deadly,
        )
        try:
            with listening(nemesis.moments):
                for relay, projector in drawn.crew:
                    world.start(relay=relay, projector=projector)
                await self._suffer(world, network, nemesis, writer)
                await self._heal(world, network, nemesis, writer)
        finally:
            await nemesis.retire()
            await world.close()
        return self._outcome(
            world, nemesis.happened + network.happened + deploy.happened, nemesis, writer
        )

    async def _suffer(
        self, world: World, network: Network, nemesis: Nemesis, writer: Writer
    ) -> None:
        chance = self._chance
        for _ in range(self._plan.rounds):
            network.calm = chance.random() < 0.3
            for _ in range(chance.choice((0, 1, 1, 3, 10))):
                writer.commit(chance.choice((1, 4, 20)))
                await asyncio.sleep(chance.choice((0.0, 0.001, 0.05, 0.5)))
            nemesis.remember()
            if chance.random() < 0.7:
                await nemesis.strike()
            await asyncio.sleep(chance.choice((0.0, 0.02, 0.3, 2.0, 7.0)))
            await world.revive()
            self._look(world)

    async def _heal(self, world: World, network: Network, nemesis: Nemesis, writer: Writer) -> None:
        network.calm = True
        await nemesis.retire()
        if world.acts.shaken:
            await self._recover(world, writer)
        try:
            await world.caught_up(_HEAL)
            if self._plan.mends:
                await self._mend(world, nemesis)
            await asyncio.sleep(5)
            await world.caught_up(_HEAL)
        except AssertionError as late:
            self._problems.append(str(late))
        self._look(world)
        self._problems += [
            f"{name} is halted: {reason}"
            for (_, name, _), reason in sorted(world.library.shelves.halted.items())
            if reason
        ]

    async def _mend(self, world: World, nemesis: Nemesis) -> None:
        """Deploy code that takes everything, and retry: then nothing may be parked any more."""
        nemesis.deploy.mended = True
        parked = world.database.tables.parked_documents

        await persist(world, Operator.retry_all, lambda: not parked)
        self._problems += [
            f"{unit.projection}:{key} of partition {unit.partition} is parked for good"
            for unit, key in parked
        ]

    async def _recover(self, world: World, writer: Writer) -> None:
        """After a restart of the history: each projection says so, or is right; then it is reset.

        A number used twice is known by the next record, so there is one for every thing.
        """
        for _ in range(3):
            writer.commit(20)
            await asyncio.sleep(2)
            await world.revive()
        deadline = world.clock.now() + _HEAL
        silent = set(world.acts.shaken)
        while silent and world.clock.now() < deadline:
            await asyncio.sleep(1)
            await world.revive()
            silent = {name for name in silent if not _told(world, name)}
        self._problems += [
            f"{name} says nothing of a history that restarted: {world.behind([name])},"
            f" {differences(world, [name])}"
            for name in sorted(silent)
        ]
        world.acts.restarting = False
        shaken = sorted(world.acts.shaken)
        epoch = 0
        while epoch != (epoch := world.database.notes(world.app).epoch):
            world.acts.shaken |= set(shaken)
            await self._give_up(world, shaken)
            # Whoever said so may have said it of an earlier restart: people look again, and do it again
            # where the history has restarted since.
            await asyncio.sleep(_LOOKED_AGAIN)
            await world.revive()
        world.acts.shaken.clear()

    async def _give_up(self, world: World, names: list[str]) -> None:
        for name in names:
            if world.halted(name) or name in world.acts.halfway:
                await persist(
                    world,
                    lambda operator, name=name: operator.give_up(name),
                    lambda name=name: name not in world.acts.shaken,
                )

    def _look(self, world: World) -> None:
        if not self._problems:
            now = world.clock.now()
            quiet = [name for name in world.projections if name not in world.acts.shaken]
            self._problems += [f"at {now:.3f}: {wrong}" for wrong in differences(world, quiet)]

    def _outcome(
        self, world: World, faults: Counter[str], nemesis: Nemesis, writer: Writer
    ) -> Outcome:
        trace = [
            *nemesis.moments.passed,
            *nemesis.did,
            repr(sorted(world.library.shelves.documents.items())),
            repr(sorted(faults.items())),
        ]
        return Outcome(
            self._seed,
            writer.n,
            faults,
            world.clock.now(),
            judge(world),
            self._problems,
            nemesis.did,
            hashlib.sha256("\n".join(trace).encode()).hexdigest()[:16],
        )


def _told(world: World, name: str) -> bool:
    """Whether readers are told that a projection is wrong, or it is not."""
    return world.halted(name) or not (world.behind([name]) or differences(world, [name]))
