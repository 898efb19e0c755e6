"""Several processes: shares, takeovers, and those who wake up too late."""

from __future__ import annotations

import pytest

from readside.adapters.memory.leases import MemoryLeases
from readside.core.errors import UnavailableError
from readside.core.leases import RESETS, Unit
from readside.testing.clock import run
from readside.testing.moments import DiedError
from readside.testing.truth import differences
from readside.testing.world import Shape


def held(world):
    """The units by the process whose lease is valid now."""
    found = {}
    for unit, lease in world.database.tables.leases.items():
        if lease.expires_at > world.database.now():
            found.setdefault(lease.owner, set()).add(unit)
    return found


def test_two_projectors_share_the_work(tell):
    async def story():
        async with tell(Shape(partitions=4)) as told:
            told.world.start(projector=False)
            first, second = (told.world.start(relay=False) for _ in range(2))
            await told.write(20)
            shares = held(told.world)
            assert {len(shares[first.name]), len(shares[second.name])} == {10}
            await told.end()
            await second.stop()
            await told.world.clock.sleep(3)
            assert len(held(told.world)[first.name]) == 20
            await told.write(5)
            await told.end()

    run(story())


@pytest.mark.parametrize("frozen", [1.0, 4.0, 6.0, 20.0, 90.0])
def test_a_projector_that_was_frozen_is_fenced(tell, frozen):
    async def story():
        async with tell(Shape(partitions=4), spoil=0.03) as told:
            told.world.start(projector=False)
            first, _ = (told.world.start(relay=False) for _ in range(2))
            await told.write(12, pause=0.2)
            for _ in range(3):
                for _ in range(5):
                    told.writer.commit()
                first.life.freeze()
                await told.write(4, pause=frozen / 4)
                first.life.thaw()
                await told.write(6, pause=0.2)
            await told.end()
            for unit, lease in told.world.database.tables.leases.items():
                checkpoint = told.world.checkpoints(unit.projection)[unit.partition]
                assert checkpoint.token == lease.token

    run(story())


def test_a_dead_projector_is_replaced_when_its_leases_run_out(tell):
    async def story():
        async with tell(Shape(partitions=4)) as told:
            world = told.world
            world.start(projector=False)
            first, second = (world.start(relay=False) for _ in range(2))
            await told.write(12)
            await first.kill(silently=True)
            told.writer.commit()
            began = world.clock.now()
            await told.in_step()
            assert world.clock.now() - began < world.shape.lease_seconds + 3
            assert set(held(world)) == {second.name}
            await told.end()

    run(story())


@pytest.mark.parametrize("silently", [False, True], ids=["told", "silently"])
def test_a_second_relay_takes_over(tell, silently):
    async def story():
        async with tell() as told:
            world = told.world
            first = world.start(projector=False)
            await told.write(3)
            second = world.start(projector=False)
            world.start(relay=False)
            await told.write(6)
            assert first.relay.active.is_set()
            assert second.relay.state == "standby"
            await first.kill(silently=silently)
            await told.write(6)
            await told.end()
            assert second.relay.active.is_set()

    run(story())


@pytest.mark.parametrize("frozen", [2.0, 9.0, 12.0, 60.0])
def test_a_relay_that_was_frozen_does_no_harm(tell, frozen):
    """What it still sends, and still notes, is what was sent and noted before."""

    async def story():
        async with tell(Shape(settle_delay=0.5)) as told:
            world = told.world
            first = world.start(projector=False)
            world.start(projector=False)
            world.start(relay=False)
            await told.write(4)
            for _ in range(3):
                for _ in range(5):
                    told.writer.commit()
                first.life.freeze()
                await told.write(6, pause=frozen / 6)
                first.life.thaw()
                await told.write(3)
            await told.end()

    run(story())


@pytest.mark.parametrize("frozen", [2.0, 12.0, 60.0])
def test_without_a_broker_the_standby_takes_over_everything(tell, frozen):
    async def story():
        async with tell(Shape(direct=True, settle_delay=0.5)) as told:
            world = told.world
            first, second = world.start(), world.start()
            await told.write(6)
            assert first.relay.active.is_set()
            first.life.freeze()
            await told.write(6, pause=frozen / 6)
            first.life.thaw()
            await told.write(6)
            await told.end()
            assert first.relay.active.is_set() != second.relay.active.is_set()

    run(story())


def test_everybody_leaves_and_comes_back(tell):
    async def story():
        async with tell(Shape(partitions=3), spoil=0.05) as told:
            world = told.world
            for _ in range(5):
                processes = [world.start() for _ in range(3)]
                await told.write(4)
                for process in processes:
                    await process.stop()
                told.writer.commit()
            world.start()
            await told.end()
            assert differences(world) == []

    run(story())


class Full:
    """A store that answers no load while it is full."""

    def __init__(self):
        self.full = False

    async def before(self, call):
        if self.full and call in ("store.load", "store.apply"):
            raise UnavailableError("OOM command not allowed")

    async def after(self, call):
        pass


def test_a_store_that_hiccups_after_deaths_makes_nobody_a_suspect(tell):
    """What a process tries again and again, and survives, does not kill processes."""

    async def story():
        async with tell() as told:
            world = told.world
            world.gate = gate = Full()
            world.start(projector=False)
            await told.write(2)
            gate.full = True
            process = world.start(relay=False)
            await told.write(3)
            await process.kill()
            world.processes.remove(process)
            await told.write(6, pause=1)
            world.start(relay=False)
            await told.write(3)
            await world.clock.sleep(20)
            assert {lease.starts for lease in world.database.tables.leases.values()} == {2}
            gate.full = False
            await told.end()
            assert not world.database.tables.parked_documents

    run(story())


def test_an_event_that_kills_every_process_is_parked_by_itself(tell):
    async def story():
        async with tell() as told:
            world = told.world
            deadly = world.projections["count"].routes["thing.wrote"]
            handler, victim = deadly.handler, set()

            def kill(event, view):
                if event.n == 20:
                    world.die()
                    victim.add(event.id)
                    raise DiedError
                return handler(event, view)

            deadly.handler = kill
            world.start(projector=False)
            world.start(relay=False)
            await told.write(12)
            await world.clock.sleep(60)
            await told.end()
            parked = {
                (unit.projection, key) for unit, key in world.database.tables.parked_documents
            }
            assert parked == {("count", key) for key in victim}

    run(story())


@pytest.mark.parametrize("some", [1, 100], ids=["one of them", "all"])
def test_a_process_that_is_elected_during_a_reset_takes_the_rest_later(tell, some):
    async def story():
        async with tell(Shape(direct=True)) as told:
            world = told.world
            leases = MemoryLeases(world.database, 30.0)
            units = [
                Unit(name, number) for name in sorted(world.projections)[:some] for number in (0, 1)
            ]
            assert sorted(await leases.seize(f"{RESETS}one", units))
            process = world.start()
            await world.clock.sleep(5)
            assert process.relay.active.is_set()
            assert held(world)[f"{RESETS}one"] == set(units)
            await leases.leave(f"{RESETS}one")
            await told.write(5)
            await told.end()

    run(story())
