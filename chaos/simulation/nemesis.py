"""What happens to processes and servers, one thing after another, by chance out of the seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from readside.adapters.memory.broker import Backup
from readside.adapters.memory.store import Shelves
from readside.ports.probe import listening
from readside.testing.moments import DieAt, Recorder
from readside.testing.world import Process, World


class Nemesis:
    """Knows how to do each fault, and notes what it did.

    Args:
        world: whom to do it to.
        chance: where chance comes from.
        faults: what it may do.
    """

    def __init__(self, world: World, chance: random.Random, faults: tuple[str, ...]) -> None:
        self._world = world
        self._chance = chance
        self._backups: list[tuple[float, Shelves]] = []
        self._logs: list[Backup] = []
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
            "quiet": self._quiet,
        }
        self._faults = {name: every[name] for name in faults if name in every}

    def remember(self) -> None:
        """Make backups, for servers to come back as."""
        self._backups = [
            *self._backups[-4:],
            (self._world.clock.now(), self._world.library.backup()),
        ]
        self._logs = [*self._logs[-2:], self._world.log.backup()]

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
                if death.died:
                    break
        if death.died:
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
        young = [backup for made_at, backup in self._backups if made_at > oldest]
        if young:
            self._world.library.roll_back(self._chance.choice(young))
            self._note("store_rolled_back")

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

    async def _quiet(self) -> None:
        self._world.database.advance(self._chance.choice((8, 4096, 10**6)))
        self._note("quiet")
