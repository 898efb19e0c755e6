"""A retry by an operator, in the middle of what happens to the servers."""

from __future__ import annotations

import pytest

from readside.adapters.memory.parking import MemoryParking
from readside.adapters.memory.store import MemoryStore
from readside.core.folding import Folder
from readside.core.leases import Unit
from readside.projector.release import release
from readside.testing.clock import run
from readside.testing.truth import stored
from readside.testing.workload import Spoiled, Wrote, projections
from readside.testing.world import Shape, World

UNIT = Unit("fragile", 0)


class Pipeline:
    """One projection whose handler is mended by `mended.append`."""

    def __init__(self, gate=None):
        self.mended = []
        every = projections(lambda: bool(self.mended))
        self.world = World({"fragile": every["fragile"]}, Shape(partitions=1), gate)

    async def commit(self, *events):
        self.world.database.commit(*events)
        await self.world.caught_up()

    async def retry(self):
        world = self.world
        store, parking = MemoryStore(world.library), MemoryParking(world.database)
        await store.open(world.app)
        events = await parking.waiting(UNIT, "a")
        released = await release(Folder(world.projections["fragile"]), store, UNIT, "a", events)
        await parking.applied(UNIT, "a", released.until)
        assert await parking.free(UNIT, "a")

    def numbers(self):
        return stored(self.world, "fragile")["a"]["numbers"]


async def parked_and_mended():
    pipeline = Pipeline()
    pipeline.world.start()
    await pipeline.commit(Wrote("a", 1, "-"), Spoiled("a", 2), Wrote("a", 3, "-"))
    assert pipeline.numbers() == [1]
    pipeline.mended.append(True)
    return pipeline


def test_a_retry_brings_what_waited_and_what_comes_follows():
    async def story():
        pipeline = await parked_and_mended()
        await pipeline.retry()
        await pipeline.commit(Wrote("a", 4, "-"))
        assert pipeline.numbers() == [1, 2, 3, 4]
        await pipeline.world.close()

    run(story())


@pytest.mark.parametrize("restart", [True, False])
def test_a_store_that_goes_back_behind_a_retry_gets_it_again(restart):
    """The checkpoint is the same before and after the retry: only the document went back."""

    async def story():
        pipeline = await parked_and_mended()
        world = pipeline.world
        backup = world.library.backup()
        await pipeline.retry()
        world.library.roll_back(backup)
        if restart:
            await world.processes.pop().stop()
            world.start()
            await world.clock.sleep(10)
        await pipeline.commit(Wrote("a", 4, "-"))
        assert pipeline.numbers() == [1, 2, 3, 4]
        await world.close()

    run(story())


def test_what_was_retried_comes_again_whole_though_in_pages():
    """More events than a page of the model has, and a handler that cannot take them any more."""

    async def story():
        pipeline = await parked_and_mended()
        world = pipeline.world
        await pipeline.commit(*(Wrote("a", number, "-") for number in range(4, 10)))
        backup = world.library.backup()
        await pipeline.retry()
        world.library.roll_back(backup)
        pipeline.mended.clear()
        await world.processes.pop().stop()
        world.start()
        await world.clock.sleep(10)
        waiting = await MemoryParking(world.database).waiting(UNIT, "a")
        assert [event.record.nth for event in waiting] == list(range(2, 10))
        pipeline.mended.append(True)
        await pipeline.retry()
        await pipeline.commit(Wrote("a", 10, "-"))
        assert pipeline.numbers() == list(range(1, 11))
        await world.close()

    run(story())


class EmptyAtLoad:
    """A gate which has the store emptied before documents are loaded, once, when it is told to."""

    def __init__(self):
        self.world = None

    async def before(self, call):
        if call == "store.load" and self.world is not None:
            self.world.library.wipe()
            self.world = None

    async def after(self, call):
        pass


def test_what_an_event_waits_for_is_never_told_by_a_store_that_came_back_empty():
    """It would stay so: with the store emptied once more, a retry overtook what comes before."""

    async def story():
        gate = EmptyAtLoad()
        pipeline = Pipeline(gate)
        world = pipeline.world
        world.start()
        await pipeline.commit(Wrote("a", 1, "-"))
        gate.world = world
        await pipeline.commit(Spoiled("a", 2), Wrote("a", 3, "-"))
        assert gate.world is None
        assert pipeline.numbers() == [1]
        first, second = await MemoryParking(world.database).waiting(UNIT, "a")
        assert first.base == first.record.predecessor.encode()
        assert second.base == first.record.position.encode()
        await world.close()

    run(story())


def test_garbled_positions_park_their_document_until_the_store_has_others():
    async def story():
        pipeline = Pipeline()
        world = pipeline.world
        world.start()
        await pipeline.commit(Wrote("a", 1, "-"), Wrote("b", 1, "-"))
        name = (world.app, "fragile", "a")
        world.library.shelves.positions[name] = "garbage"
        await pipeline.commit(Wrote("a", 2, "-"), Wrote("b", 2, "-"))
        await pipeline.commit(Wrote("a", 3, "-"))
        await world.clock.sleep(1)
        assert stored(world, "fragile")["b"]["numbers"] == [1, 2]
        assert {one.state for one in world.database.tables.progress.values()} == {"following"}
        assert [key for *_, key in world.database.tables.parked_documents] == ["a"]
        store, parking = MemoryStore(world.library), MemoryParking(world.database)
        await store.open(world.app)
        events = await parking.waiting(UNIT, "a")
        released = await release(Folder(world.projections["fragile"]), store, UNIT, "a", events)
        assert released.until is None
        assert "'garbage'" in str(released.error)
        world.library.wipe()
        await world.clock.sleep(10)
        await pipeline.commit(Wrote("a", 4, "-"))
        await pipeline.retry()
        assert pipeline.numbers() == [1, 2, 3, 4]
        await world.close()

    run(story())
