"""A read store that goes away, comes back older, or comes back empty."""

from __future__ import annotations

import logging

import pytest

from readside.testing.clock import run
from readside.testing.world import Shape

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        Shape(settle_delay=3600.0),
        Shape(settle_delay=3600.0, direct=True),
        Shape(settle_delay=0.5),
    ],
    ids=["log", "direct", "source-forgets"],
)


@SHAPES
def test_an_absence(tell, shape):
    async def story():
        async with tell(shape) as told:
            told.world.start()
            await told.write(5)
            told.world.library.stop()
            await told.write(10)
            told.world.library.start()
            await told.write(5)
            await told.end()

    run(story())


@SHAPES
def test_a_wiped_store_is_filled_again(tell, shape):
    """From PostgreSQL while it has everything, else from the beginning of the log."""

    async def story():
        async with tell(shape) as told:
            told.world.start()
            await told.write(8)
            await told.in_step()
            told.world.library.wipe()
            await told.write(8)
            await told.end()
            assert told.world.library.shelves.documents

    run(story())


@SHAPES
def test_a_store_that_is_wiped_in_silence_is_filled_again(tell, shape):
    """Nothing is written after it: whoever is idle has to look."""

    async def story():
        async with tell(shape) as told:
            told.world.start()
            await told.write(8)
            await told.in_step()
            await told.world.clock.sleep(20)
            told.world.library.wipe()
            await told.world.clock.sleep(30)
            await told.end()
            assert told.world.library.shelves.documents

    run(story())


@SHAPES
@pytest.mark.parametrize("pause", [0.0, 0.05, 5.0])
def test_a_store_that_comes_back_older_replays(tell, shape, pause):
    async def story():
        async with tell(shape) as told:
            told.world.start()
            await told.write(5)
            backup = told.world.library.backup()
            await told.write(5)
            await told.in_step()
            await told.world.clock.sleep(pause)
            told.world.library.roll_back(backup)
            await told.write(5)
            await told.end()

    run(story())


@SHAPES
def test_a_store_that_goes_back_again_and_again(tell, shape):
    async def story():
        async with tell(shape, spoil=0.05) as told:
            told.world.start()
            for _ in range(6):
                backup = told.world.library.backup()
                await told.write(4, pause=0.1)
                told.world.library.roll_back(backup)
                await told.write(2, pause=0.1)
            await told.end()

    run(story())


def test_what_a_store_lost_again_is_not_forgotten_meanwhile(tell):
    """It had been applied long enough to be settled soon; then the store went back, and the log too."""

    async def story():
        async with tell(Shape(settle_delay=4.0)) as told:
            world = told.world
            world.start(projector=False)
            projector = world.start(relay=False)
            await told.write(6)
            backup = world.library.backup()
            await told.write(6)
            await told.in_step()
            reported = dict(world.database.tables.progress)
            await world.clock.sleep(0.5)
            world.library.roll_back(backup)
            world.log.wipe()
            while all(
                progress.position >= reported[unit].position
                for unit, progress in world.database.tables.progress.items()
            ):
                await world.clock.sleep(0.01)
            await projector.kill()
            await world.clock.sleep(30)
            world.log.wipe()
            world.start(relay=False)
            await told.end()
            assert not any(world.library.shelves.halted.values())

    run(story())


@pytest.mark.parametrize("direct", [False, True], ids=["log-wiped", "direct"])
@pytest.mark.parametrize("absence", [0.0, 3.0, 15.0])
def test_a_store_that_crashed_comes_back_a_second_older(tell, direct, absence):
    """Redis with appendfsync everysec: the source must not count the time of the absence."""

    async def story():
        async with tell(Shape(direct=direct, settle_delay=5.0)) as told:
            world = told.world
            world.start()
            await told.write(20)
            await told.in_step()
            backup = world.library.backup()
            await told.write(3)
            await told.in_step()
            world.library.stop()
            await world.clock.sleep(absence)
            world.library.roll_back(backup)
            if not direct:
                world.log.wipe()
            world.library.start()
            await told.write(3)
            await told.end()
            assert not any(world.library.shelves.halted.values())

    run(story())


def test_a_batch_that_breaks_off_anywhere(tell):
    """Documents one by one, the checkpoint last: each document knows what it contains."""

    async def story(after):
        async with tell(Shape(piecemeal=True), spoil=0.05) as told:
            told.world.start()
            for number in range(4):
                told.world.library.interrupt(after + number)
                await told.write(3)
            await told.end()

    for after in range(8):
        run(story(after))


class Bug:
    """A gate at which an adapter fails in a way that nobody foresaw."""

    def __init__(self, call):
        self.call = call
        self.there = False

    async def before(self, call):
        if self.there and call == self.call:
            raise ZeroDivisionError("of the adapter")

    async def after(self, call):
        pass


@pytest.mark.parametrize("call", ["store.apply", "store.checkpoints"])
def test_what_nobody_foresaw_is_told_and_tried_again(tell, caplog, call):
    async def story():
        async with tell() as told:
            world = told.world
            world.gate = bug = Bug(call)
            world.start()
            await told.write(3)
            await told.in_step()
            bug.there = True
            caplog.clear()
            await told.write(6, pause=0)
            await world.clock.sleep(3)
            for _ in range(300):
                progress = world.database.tables.progress.values()
                broken = [one for one in progress if one.state == "retrying"]
                assert len(broken) == len(progress)
                assert {one.detail for one in broken} == {"ZeroDivisionError('of the adapter')"}
                await world.clock.sleep(0.1)
            said = [one for one in caplog.records if "nobody foresaw" in one.getMessage()]
            assert all(one.exc_info and one.levelno == logging.ERROR for one in said)
            assert len(broken) <= len(said) <= 2 * len(broken)
            bug.there = False
            await told.end()
            assert {one.state for one in world.database.tables.progress.values()} == {"following"}
            assert not world.database.tables.parked_documents

    run(story())


def test_what_nobody_has_any_more_is_said_to_readers(tell):
    """No log, and PostgreSQL was allowed to forget: never a wrong answer without a word."""

    async def story():
        async with tell(Shape(direct=True, settle_delay=0.5)) as told:
            world = told.world
            world.start()
            await told.write(8)
            await told.settled()
            world.library.wipe()
            await told.write(5)
            await world.clock.sleep(60)
            assert world.behind()
            halted = {(app, name) for app, name, _ in world.library.shelves.halted}
            assert halted == {(world.app, name) for name in world.projections}

    run(story())
