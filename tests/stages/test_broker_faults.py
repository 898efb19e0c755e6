"""A log that forgets what it has acknowledged: seen by the chain, healed from PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from readside.ports.probe import listening
from readside.testing.clock import run
from readside.testing.moments import Recorder
from readside.testing.world import Shape

#: So long that PostgreSQL keeps everything for the whole story.
KEEPING = Shape(settle_delay=3600.0)
#: So short that PostgreSQL forgets during the story.
FORGETTING = Shape(settle_delay=0.5)
SHAPES = pytest.mark.parametrize(
    "shape", [KEEPING, FORGETTING], ids=["source-keeps", "source-forgets"]
)


def wipe(world):
    world.log.wipe()


def lose_tails(world):
    for partition in range(world.shape.partitions):
        world.log.lose_tail(partition, 3)


def lose_one_tail(world):
    world.log.lose_tail(0, 1)


def truncate(world):
    for partition in range(world.shape.partitions):
        world.log.truncate(partition, 1)


def restart(world):
    world.log.stop()
    world.log.start()


FAULTS = pytest.mark.parametrize("fault", [wipe, lose_tails, lose_one_tail, truncate, restart])


@FAULTS
@SHAPES
def test_while_everybody_is_in_step(tell, fault, shape):
    async def story():
        async with tell(shape) as told:
            told.world.start()
            await told.write(8)
            await told.in_step()
            fault(told.world)
            await told.write(8)
            await told.end()

    run(story())


@FAULTS
@SHAPES
def test_in_the_middle_of_the_traffic(tell, fault, shape):
    async def story():
        async with tell(shape) as told:
            told.world.start()
            for _ in range(4):
                await told.write(5, pause=0.05)
                fault(told.world)
            await told.end()

    run(story())


@FAULTS
@SHAPES
def test_while_the_projectors_are_away(tell, fault, shape):
    """They come back behind a log that has forgotten what they need; PostgreSQL kept it for them."""

    async def story():
        async with tell(shape) as told:
            relay = told.world.start(projector=False)
            projector = told.world.start(relay=False)
            await told.write(6)
            await told.in_step()
            await projector.stop()
            await told.write(6)
            fault(told.world)
            await told.write(6)
            told.world.start(relay=False)
            await told.end()
            assert not relay.ended

    run(story())


@FAULTS
@SHAPES
def test_while_the_relay_is_away(tell, fault, shape):
    async def story():
        async with tell(shape) as told:
            relay = told.world.start(projector=False)
            told.world.start(relay=False)
            await told.write(6)
            await told.in_step()
            await relay.stop()
            await told.write(6)
            fault(told.world)
            told.world.start(projector=False)
            await told.write(6)
            await told.end()

    run(story())


@SHAPES
def test_a_log_that_comes_back_older(tell, shape):
    async def story():
        async with tell(shape) as told:
            told.world.start()
            await told.write(5)
            backup = told.world.log.backup()
            await told.write(5)
            await told.in_step()
            told.world.log.roll_back(backup)
            await told.write(5)
            await told.end()

    run(story())


@SHAPES
def test_a_log_that_comes_back_older_while_the_projectors_are_away(tell, shape):
    """Its sequences are used again: an offset then names another record than before."""

    async def story():
        async with tell(shape) as told:
            told.world.start(projector=False)
            projector = told.world.start(relay=False)
            await told.write(5)
            await told.in_step()
            backup = told.world.log.backup()
            await told.write(5)
            await told.in_step()
            await projector.stop()
            told.world.log.roll_back(backup)
            await told.write(9)
            told.world.start(relay=False)
            await told.end()

    run(story())


def test_a_lost_tail_is_seen_without_a_restart_of_the_relay(tell):
    """The projectors are behind when it is lost, and nothing is written after it."""
    recorder = Recorder()

    async def story():
        async with tell(KEEPING) as told:
            world = told.world
            relay = world.start(projector=False)
            projector = world.start(relay=False)
            await told.write(5)
            await told.in_step()
            await projector.stop()
            for _ in range(4):
                told.writer.commit()
            await world.clock.sleep(1)
            assert relay.relay.shipped == told.writer.n
            for partition in range(world.shape.partitions):
                world.log.lose_tail(partition, 2)
            with listening(recorder):
                world.start(relay=False)
                await told.end()
            assert not relay.ended

    run(story())
    assert "projector.asked" in recorder.passed
    assert "relay.started" in recorder.passed  # it went back, by itself


def test_a_publish_that_breaks_off_anywhere(tell):
    async def story(after):
        async with tell(Shape()) as told:
            told.world.start()
            told.world.log.interrupt(after)
            await told.write(6)
            await told.end()

    for after in range(12):
        run(story(after))


@pytest.mark.parametrize("shape", [KEEPING, Shape(direct=True)], ids=["log", "direct"])
def test_a_slow_projector_loses_nothing(tell, shape):
    """It gets what it can take; the rest waits in the log, or in PostgreSQL."""

    async def story():
        async with tell(shape) as told:
            process = told.world.start()
            await told.write(3)
            process.life.freeze()
            for _ in range(300):
                told.writer.commit(20)
            await told.world.clock.sleep(3)
            process.life.thaw()
            await told.end()

    run(story())


def test_an_offset_whose_record_was_lost_and_used_again(tell):
    """PostgreSQL was bound to forget what the projector never had: the log has it, before the offset."""

    async def story():
        async with tell(Shape(settle_delay=0.5, retained_wal=0, partitions=1)) as told:
            world = told.world
            world.start(projector=False)
            projector = world.start(relay=False)
            await told.write(6)
            await told.in_step()
            await projector.stop()
            world.log.lose_tail(0, 4)
            for _ in range(10):
                told.writer.commit()
                await world.clock.sleep(1)
            notes = world.database.tables.notes
            assert notes.confirmed > world.checkpoints("trail")[0].position.lsn
            world.start(relay=False)
            await told.end()
            assert not world.library.shelves.halted

    run(story())


class Slow:
    """A log that takes a second for every batch."""

    async def before(self, call):
        if call == "broker.publish":
            await asyncio.sleep(1)

    async def after(self, call):
        pass


def test_a_relay_that_dies_within_a_transaction_begins_at_its_beginning(tell):
    """A place in the middle of a transaction is none to start from, even where the reader pauses."""

    async def story(seconds):
        shape = Shape(settle_delay=0.0, chunk=2, stutter=True, partitions=1)
        async with tell(shape) as told:
            world = told.world
            world.start(relay=False)
            world.gate = Slow()
            relay = world.start(projector=False)
            await told.write(2, pause=8)
            told.writer.commit(1)
            world.database.commit(*(told.writer.event() for _ in range(7)))
            await world.clock.sleep(seconds)
            await relay.kill()
            world.processes.remove(relay)
            world.gate = None
            world.start(projector=False)
            await told.write(3)
            await told.end()
            assert not world.library.shelves.halted

    for tenths in range(10, 70, 3):
        run(story(tenths / 10))
