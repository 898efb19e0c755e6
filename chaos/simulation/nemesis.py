"""What happens to processes and servers, one thing after another, by chance out of the seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from chaos.simulation.callers import Callers
from readside.adapters.memory.broker import Backup
from readside.adapters.memory.database import Tables
from readside.adapters.memory.store import Shelves
from readside.core.partition import partition_of
from readside.ports.probe import listening
from readside.testing.moments import DieAt, DiedError, Recorder
from readside.testing.world import Process, World, here

#: What makes the history restart, or seem to.
HISTORY = frozenset(
    {
        "slot_lost",
        "slot_dropped",
        "slot_advanced",
        "database_restored",
        "machine_restored",
        "database_moved",
        "failover",
    }
)


class Deploy:
    """The code as it is deployed: its bugs, until they are mended.

    Args:
        chance: where chance comes from.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        #: Whether the handlers can take now what they could not.
        self.mended = False
        self.happened: Counter[str] = Counter()

    def fatal(self) -> None:
        """What a deadly event does to the process whose handler gets it: most die, some hang."""
        process = here()
        if process is None:
            return
        if self._chance.random() < 0.8:
            process.die()
            self.happened["handler_dies"] += 1
        else:
            process.hang()
            self.happened["handler_hangs"] += 1
        raise DiedError("in a handler")


class Nemesis:
    """Knows how to do each fault, and notes what it did.

    Args:
        world: whom to do it to.
        chance: where chance comes from.
        faults: what it may do.
        deploy: the code that is deployed.
    """

    def __init__(
        self, world: World, chance: random.Random, faults: tuple[str, ...], deploy: Deploy
    ) -> None:
        self.deploy = deploy
        self._world = world
        self._chance = chance
        self._backups: list[tuple[float, Shelves]] = []
        self._logs: list[Backup] = []
        self._dumps: list[Tables] = []
        self._dumping = not HISTORY.isdisjoint(faults)
        self._callers = Callers(world, chance, self._note, self._forget_backups)
        self.moments = Recorder()
        self.happened: Counter[str] = Counter()
        self.did: list[str] = []
        every: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "vanish": self._vanish,
            "stop": self._stop,
            "freeze": self._freeze,
            "die_at": self._die_at,
            "log_wiped": self._log_wiped,
            "log_cut": self._log_cut,
            "tail_lost": self._tail_lost,
            "log_rolled_back": self._log_rolled_back,
            "log_away": self._log_away,
            "publish_cut": self._publish_cut,
            "repeated": self._repeated,
            "store_away": self._store_away,
            "store_rolled_back": self._store_rolled_back,
            "store_wiped": self._store_wiped,
            "database_crash": self._database_crash,
            "database_away": self._database_away,
            "clock_back": self._clock_back,
            "quiet": self._quiet,
            "deploy": self._deploy,
            "retry": self._callers.retry,
            "discard": self._callers.discard,
            "give_up": self._callers.give_up,
            "slot_lost": self._slot_lost,
            "slot_dropped": self._slot_dropped,
            "slot_advanced": self._slot_advanced,
            "database_restored": self._database_restored,
            "machine_restored": self._machine_restored,
            "database_moved": self._database_moved,
            "failover": self._failover,
        }
        self._faults = {name: every[name] for name in faults if name in every}

    def remember(self) -> None:
        """Make backups, for servers to come back as."""
        self._backups = [
            *self._backups[-4:],
            (self._world.clock.now(), self._world.library.backup()),
        ]
        self._logs = [*self._logs[-2:], self._world.log.backup()]
        if self._dumping:
            self._dumps = [*self._dumps[-2:], self._world.database.snapshot()]

    async def strike(self) -> None:
        """Do one thing."""
        if not self._faults:
            return
        name = self._chance.choice(sorted(self._faults))
        before = sum(self.happened.values())
        await self._faults[name]()
        if sum(self.happened.values()) > before:
            self.did.append(f"{self._world.clock.now():.3f} {name}")

    def _note(self, name: str) -> None:
        self.happened[name] += 1

    def _process(self) -> Process:
        return self._chance.choice(self._world.processes)

    def _partition(self) -> int:
        return self._chance.randrange(self._world.shape.partitions)

    async def _replace(self, process: Process) -> None:
        self._world.processes.remove(process)
        if self._world.processes:
            await asyncio.sleep(self._chance.choice((0.0, 0.1, 3.0, 8.0)))
        self._world.start(relay=process.relays, projector=process.projects)

    async def _kill(self) -> None:
        process = self._process()
        await process.kill()
        self._note("kill")
        await self._replace(process)

    async def _vanish(self) -> None:
        process = self._process()
        await process.kill(silently=True)
        self._note("vanish")
        await self._replace(process)

    async def _stop(self) -> None:
        process = self._process()
        await process.stop()
        self._note("stop")
        await self._replace(process)

    async def _freeze(self) -> None:
        process = self._process()
        process.life.freeze()
        self._note("freeze")
        await asyncio.sleep(self._chance.choice((0.3, 3.0, 6.0, 12.0, 40.0)))
        process.life.thaw()

    async def _die_at(self) -> None:
        seen = sorted(set(self.moments.passed))
        if not seen:
            return
        death = DieAt(self._chance.choice(seen), self._chance.randint(1, 3), self._world.die)
        with listening(death):
            for _ in range(20):
                await asyncio.sleep(0.2)
                if death.happened:
                    break
        if death.happened:
            self._note("die_at")
        await self._world.revive()

    async def _log_wiped(self) -> None:
        self._world.log.wipe()
        self._note("log_wiped")

    async def _log_cut(self) -> None:
        self._world.log.truncate(self._partition(), self._chance.choice((0, 1, 5)))
        self._note("log_cut")

    async def _tail_lost(self) -> None:
        partition = self._partition()
        if self._world.log.records.get(partition):
            self._world.log.lose_tail(partition, self._chance.choice((1, 2, 10)))
            self._note("tail_lost")

    async def _log_rolled_back(self) -> None:
        if self._logs:
            self._world.log.roll_back(self._chance.choice(self._logs))
            self._note("log_rolled_back")

    async def _log_away(self) -> None:
        self._world.log.stop()
        self._note("log_away")
        await asyncio.sleep(self._chance.choice((0.0, 1.0, 15.0)))
        self._world.log.start()

    async def _publish_cut(self) -> None:
        self._world.log.interrupt(self._chance.randrange(6))
        self._note("publish_cut")

    async def _repeated(self) -> None:
        partition = self._partition()
        records = self._world.log.records.get(partition)
        if records:
            self._world.log.repeat(partition, self._chance.randrange(len(records)), 5)
            self._note("repeated")

    async def _store_away(self) -> None:
        self._world.library.stop()
        self._note("store_away")
        await asyncio.sleep(self._chance.choice((0.0, 1.0, 15.0)))
        self._world.library.start()

    async def _store_rolled_back(self) -> None:
        """No further than a store may go which brings to disk within `settle_delay`."""
        oldest = self._world.clock.now() - self._world.shape.settle_delay * 0.9
        young = [
            (made_at, backup)
            for made_at, backup in self._backups
            if made_at > oldest and not self._undoes_a_retry(backup)
        ]
        if young:
            chosen = self._chance.choice(young)
            self._world.library.roll_back(chosen[1])
            # What came after it is gone; to come back as that next time would be to go forward.
            del self._backups[self._backups.index(chosen) + 1 :]
            self._note("store_rolled_back")

    def _undoes_a_retry(self, backup: Shelves) -> bool:
        """Whether nothing but a retry would be undone, which the projector cannot see.

        It does when the document's next event comes (tests/stages/test_retries.py); one that stays
        quiet stays as the store brought it back, see docs/failure-modes.md.
        """
        now, app = self._world.library.shelves, self._world.app
        for projection, key in self._world.acts.touched:
            name = (app, projection, key)
            if backup.positions.get(name) == now.positions.get(name) and backup.documents.get(
                f"{projection}:{key}"
            ) == now.documents.get(f"{projection}:{key}"):
                continue
            partition = partition_of(key, self._world.shape.partitions)
            unit = (app, projection, partition)
            if backup.checkpoints.get(unit) == now.checkpoints.get(unit):
                return True
        return False

    async def _store_wiped(self) -> None:
        self._world.library.wipe()
        self._backups.clear()
        self._note("store_wiped")

    async def _database_crash(self) -> None:
        if self._chance.random() < 0.5:
            self._world.database.checkpoint()
        self._world.database.crash()
        self._note("database_crash")

    async def _database_away(self) -> None:
        self._world.database.stop()
        self._note("database_away")
        await asyncio.sleep(self._chance.choice((1.0, 15.0)))
        self._world.database.start()

    async def _clock_back(self) -> None:
        self._world.database.step_back(self._chance.choice((0.5, 5.0, 60.0, 3600.0)))
        self._note("clock_back")

    async def _quiet(self) -> None:
        self._world.database.advance(self._chance.choice((8, 4096, 10**6)))
        self._note("quiet")

    async def _deploy(self) -> None:
        self.deploy.mended = not self.deploy.mended
        self._note("deploy")

    def _forget_backups(self) -> None:
        """What goes back behind a reset has to be reset again: not told here, docs/failure-modes.md does."""
        self._backups.clear()
        self._dumps.clear()

    async def retire(self) -> None:
        """Send everybody home who called a command."""
        await self._callers.retire()

    def _shake(self, name: str) -> None:
        """From here on, readers have to be told, or the documents have to be right all the same."""
        self._world.acts.restarting = True
        self._world.acts.shaken |= set(self._world.projections)
        self._note(name)

    async def _slot_lost(self) -> None:
        self._world.database.lose_slot()
        self._shake("slot_lost")

    async def _slot_dropped(self) -> None:
        self._world.database.drop_slot()
        self._shake("slot_dropped")

    async def _slot_advanced(self) -> None:
        self._world.database.advance_slot()
        self._shake("slot_advanced")

    async def _database_restored(self) -> None:
        """From a base backup, or to a point in time: without the slot."""
        if self._dumps:
            dump = self._chance.choice(self._dumps)
            if self._chance.random() < 0.5:
                self._world.database.restore(dump)
            else:
                self._world.database.promote(dump, slot=False)
            self._shake("database_restored")

    async def _machine_restored(self) -> None:
        """From a snapshot of the whole machine, its slot and all."""
        dumps = [dump for dump in self._dumps if not self._forgets_parked(dump)]
        if dumps:
            self._world.database.restore(self._chance.choice(dumps), slot=True)
            self._shake("machine_restored")
            await self._reconnected()

    def _forgets_parked(self, dump: Tables) -> bool:
        """Whether events are there and parked, and in the dump they are there and not parked yet.

        A real log grows by the parking, and the next watermark tells how far it is, a second later; in
        the model notes take no place in the log. docs/failure-modes.md names the second.
        """
        newest = dump.transactions[-1].lsn if dump.transactions else 0
        noted = dump.parked_events.keys() | dump.retried.keys()
        now = self._world.database.tables.parked_events.keys()
        return any(name[2].lsn <= newest and name not in noted for name in now)

    async def _reconnected(self) -> None:
        """Wait until a relay has looked at it: such a machine takes longer to start than a relay.

        Before that, new commits may take the very places and numbers of those which are gone, and
        then nobody can tell: docs/failure-modes.md names it.
        """
        for _ in range(300):
            await self._world.revive()
            await asyncio.sleep(1.0)
            if any(p.relay is not None and p.relay.active.is_set() for p in self._world.processes):
                break
        await asyncio.sleep(self._chance.choice((15.0, 60.0)))
        await self._world.revive()

    async def _database_moved(self) -> None:
        if self._dumps:
            self._world.database.move(self._chance.choice(self._dumps))
            self._shake("database_moved")

    async def _failover(self) -> None:
        """To a standby whose slot was synchronised, and which may lack what came last."""
        if self._dumps:
            self._world.database.promote(self._dumps[-1])
            self._shake("failover")
