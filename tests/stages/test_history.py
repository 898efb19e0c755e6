"""A write store that goes away, crashes, or goes back in time."""

from __future__ import annotations

import msgspec
import pytest

from readside.testing.clock import run
from readside.testing.truth import differences
from readside.testing.world import Shape


def shape(direct, **options):
    return Shape(direct=direct, **options)


def halted(world):
    return {name for (_, name, _), reason in world.library.shelves.halted.items() if reason}


def test_an_absence(tell, direct):
    async def story():
        async with tell(shape(direct)) as told:
            told.world.start()
            await told.write(6)
            told.world.database.stop()
            await told.world.clock.sleep(30)
            told.world.database.start()
            await told.write(6)
            await told.end()

    run(story())


@pytest.mark.parametrize("settle_delay", [0.5, 3600.0])
def test_crashes(tell, direct, settle_delay):
    """What the slot's reader confirmed since the last checkpoint is forgotten, and sent again."""

    async def story():
        async with tell(shape(direct, settle_delay=settle_delay)) as told:
            told.world.start()
            for number in range(6):
                await told.write(4)
                if number % 2:
                    told.world.database.checkpoint()
                told.world.database.crash()
            await told.end()

    run(story())


def test_quiet_stretches_are_passed(tell, direct):
    """Tokens of other people's writes: the checkpoints move on where nothing is recorded."""

    async def story():
        async with tell(shape(direct)) as told:
            told.world.start()
            await told.write(3)
            for _ in range(10):
                told.world.database.advance()
                await told.world.clock.sleep(3)
            flushed = told.world.database.tables.flushed
            for name in told.world.projections:
                for checkpoint in told.world.checkpoints(name).values():
                    assert checkpoint.position.lsn == flushed
            await told.settled()
            assert told.world.database.tables.slot.confirmed == flushed
            await told.end()

    run(story())


@pytest.mark.parametrize("lose", ["lose_slot", "drop_slot"])
def test_a_lost_slot_is_never_passed_over_in_silence(tell, direct, lose):
    """What was recorded before the next slot began may be missing: readers are told."""

    async def story():
        async with tell(shape(direct)) as told:
            world = told.world
            world.start()
            await told.write(6)
            await told.in_step()
            getattr(world.database, lose)()
            told.writer.commit()
            await world.clock.sleep(5)
            told.writer.commit()
            await world.clock.sleep(60)
            assert world.database.tables.notes.epoch > 1
            assert world.behind()
            assert halted(world) == set(world.projections)

    run(story())


async def past_a_backup(told):
    """Take a copy of the database, and let everything go on: what is written then the copy lacks."""
    await told.write(6)
    await told.in_step()
    backup = told.world.database.snapshot()
    await told.write(6)
    await told.in_step()
    return backup


@pytest.mark.parametrize("slot", [False, True], ids=["without-slot", "with-slot"])
@pytest.mark.parametrize("pause", [0.0, 30.0])
def test_a_restored_database_is_never_passed_over_in_silence(tell, direct, slot, pause):
    """The store holds what the database no longer knows: readers are told, until it is rebuilt."""

    async def story():
        async with tell(shape(direct)) as told:
            world = told.world
            world.start()
            backup = await past_a_backup(told)
            await world.clock.sleep(pause)
            world.database.restore(backup, slot=slot)
            await world.clock.sleep(60)
            assert differences(world)
            assert halted(world) == set(world.projections)

    run(story())


def test_a_restored_log_that_takes_the_old_places_again_is_another_history(tell, direct):
    """As a whole machine, and as many are written as were lost: only who looked before can know."""

    async def story():
        async with tell(shape(direct)) as told:
            world = told.world
            world.start()
            backup = await past_a_backup(told)
            lost = world.database.tables.transactions[len(backup.transactions) :]
            epoch = backup.notes.epoch
            world.database.restore(backup, slot=True)
            await world.clock.sleep(5)
            for transaction in lost:
                rows = [row._replace(id="", payload=other(row.payload)) for row in transaction.rows]
                again = world.database.commit(*rows)
                assert again.lsn == transaction.lsn
            for _ in range(30):
                told.writer.commit()
            await world.clock.sleep(60)
            assert world.database.tables.notes.epoch > epoch
            assert differences(world)
            assert halted(world) == set(world.projections)

    run(story())


def other(payload):
    """The payload of an event of the same thing with another number."""
    value = msgspec.json.decode(payload)
    return msgspec.json.encode(value | {"n": value["n"] + 1000})


def test_a_restored_log_that_has_overtaken_the_old_one_is_known_by_the_records_numbers(
    tell, direct
):
    """Snapshot of the whole machine: slot and notes went back too, and the log grew past its old end."""

    async def story():
        async with tell(shape(direct)) as told:
            world = told.world
            process = world.start()
            await told.write(6)
            await told.in_step()
            backup = world.database.snapshot()
            await told.write(6)
            await told.in_step()
            await process.stop()
            world.database.restore(backup, slot=True)
            for _ in range(30):
                told.writer.commit()
            world.start()
            await world.clock.sleep(60)
            assert not differences(world) or halted(world) == set(world.projections)

    run(story())
