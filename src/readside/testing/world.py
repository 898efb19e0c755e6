"""A whole pipeline in memory: the servers, and the processes that work with them.

The relay and the projectors are the real ones; so every fault which the models can have meets
the code that has to live with it, in virtual time and without a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from readside.adapters.direct.broker import DirectBroker
from readside.adapters.memory.broker import Log, MemoryBroker
from readside.adapters.memory.database import Database
from readside.adapters.memory.leases import MemoryLeases
from readside.adapters.memory.ledger import MemoryLedger
from readside.adapters.memory.parking import MemoryParking
from readside.adapters.memory.source import MemorySource
from readside.adapters.memory.store import Library, MemoryStore, PiecemealStore
from readside.core.errors import UnavailableError
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.ports.broker import Broker
from readside.ports.ending import end
from readside.ports.ledger import Capture
from readside.ports.store import Store
from readside.projector.projector import Projector
from readside.projector.surroundings import Surroundings
from readside.relay.relay import Relay, RelaySettings
from readside.testing.clock import LoopClock
from readside.testing.faults import Gate, Life, gated

ResultT = TypeVar("ResultT")

#: Seconds after which a process ends itself that hangs.
_STALL_SECONDS = 30.0
#: Retried events that the parking tells at once: so few that a document has more.
_PAGE = 3

_here: ContextVar[Body | None] = ContextVar("readside_testing_process", default=None)


def here() -> Body | None:
    """The process that runs this code."""
    return _here.get()


class Body:
    """What lives and dies: a process, whatever it does.

    Args:
        name: its own.
        gate: see World.
    """

    def __init__(self, name: str, gate: Gate | None) -> None:
        self.name = name
        self.life = Life(gate)
        #: Set when `World.die` has ended it.
        self.died = asyncio.Event()

    def die(self) -> None:
        """Have no more effects."""
        self.life.end()
        self.died.set()

    def hang(self) -> None:
        """Stand still, and end by itself when that has lasted too long."""
        self.life.hang()
        asyncio.get_running_loop().call_later(_STALL_SECONDS, self.die)

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something as this process."""
        context = copy_context()
        context.run(_here.set, self)
        return asyncio.get_running_loop().create_task(work, name=self.name, context=context)


@dataclass
class Acts:
    """What operators did: it changes what the documents have to be."""

    #: Where a projection was begun again, by name and partition.
    starts: dict[tuple[str, int], Position] = field(default_factory=dict)
    #: Documents of which events were retried or given up, by projection and key.
    touched: set[tuple[str, str]] = field(default_factory=set)
    #: Events that were given up, by projection, partition and position.
    discarded: set[tuple[str, int, Position]] = field(default_factory=set)
    #: Projections of which nothing can be said until they are begun again, or found in step.
    shaken: set[str] = field(default_factory=set)
    #: Projections of which a reset was begun and did not come to its end: it has to be repeated.
    halfway: set[str] = field(default_factory=set)
    #: Whether the history restarts and perhaps nobody has seen it yet: what is begun again meanwhile
    #: may begin in the old one.
    restarting: bool = False

    def begin_again(self, projection: str, checkpoints: Mapping[int, Checkpoint]) -> None:
        """Note that a projection is empty, and begins at these checkpoints."""
        for partition, checkpoint in checkpoints.items():
            self.starts[projection, partition] = checkpoint.position
        self.touched = {name for name in self.touched if name[0] != projection}
        self.discarded = {name for name in self.discarded if name[0] != projection}


@dataclass(frozen=True)
class Shape:
    """How a world is set up; times in seconds."""

    partitions: int = 2
    #: Whether records go without a broker, within one process.
    direct: bool = False
    #: Whether the store applies document by document, and the checkpoint last.
    piecemeal: bool = False
    lease_seconds: float = 5.0
    #: Events in one chunk of the source.
    chunk: int = 4000
    #: Whether every other chunk is empty.
    stutter: bool = False
    settle_delay: float = 1.0
    #: Bytes of log kept for slow projections.
    retained_wal: int = 4 * 1024**3
    seed: int = 0


class World:
    """The servers of one app.

    Args:
        projections: what the processes keep in step.
        shape: the rest.
        gate: a gate for every call of every process.
    """

    app = "shop"

    def __init__(
        self,
        projections: Mapping[str, Projection[Any]],
        shape: Shape | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.shape = shape or Shape()
        self.projections = projections
        self.gate = gate
        self.clock = LoopClock(self.shape.seed)
        self.database = Database(self.app, self.shape.partitions)
        self.database.install()
        self.log = Log()
        self.library = Library()
        self.processes: list[Process] = []
        self.acts = Acts()
        self._started = 0

    def start(self, *, relay: bool = True, projector: bool = True) -> Process:
        """Start a process with these roles."""
        self._started += 1
        process = Process(self, f"process-{self._started}", relay, projector)
        self.processes.append(process)
        process.start()
        return process

    def die(self) -> None:
        """Let the process that runs this code die; for `DieAt`."""
        process = here()
        if process is not None:
            process.die()

    async def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            await process.kill()

    def checkpoints(self, projection: str) -> dict[int, Checkpoint]:
        """The checkpoints in the store, by partition."""
        found = self.library.shelves.checkpoints
        return {
            partition: found[self.app, projection, partition]
            for partition in range(self.shape.partitions)
            if (self.app, projection, partition) in found
        }

    async def caught_up(self, patience: float = 120.0) -> None:
        """Wait until every checkpoint claims everything that was committed.

        Processes that died meanwhile are started again.

        Raises:
            AssertionError: it takes longer than `patience` seconds.
        """
        deadline = self.clock.now() + patience
        while late := self.behind():
            if self.clock.now() > deadline:
                raise AssertionError(f"not in step after {patience} seconds: {late}")
            await asyncio.sleep(0.05)
            await self.revive()

    async def revive(self) -> None:
        """Start every process again that has died."""
        for process in [process for process in self.processes if process.died.is_set()]:
            await process.kill()
            self.processes.remove(process)
            self.start(relay=process.relays, projector=process.projects)

    def halted(self, projection: str) -> bool:
        """Whether readers of a projection are told that it is wrong."""
        found = self.library.shelves.halted
        return any(reason for (_, name, _), reason in found.items() if name == projection)

    def behind(self, projections: Iterable[str] | None = None) -> list[str]:
        """The units whose checkpoints do not claim everything that was committed."""
        notes, transactions = self.database.tables.notes, self.database.tables.transactions
        epoch = notes.epoch if notes else 0
        newest = transactions[-1].lsn if transactions else 0
        late = []
        for name in self.projections if projections is None else projections:
            found = self.checkpoints(name)
            for partition in range(self.shape.partitions):
                position = found[partition].position if partition in found else None
                if position is None or position.epoch != epoch or position.lsn <= newest:
                    late.append(f"{name} {partition} at {position}")
        return late


class Process(Body):
    """One process of readside, as `readside run` starts it."""

    def __init__(self, world: World, name: str, relay: bool, projector: bool) -> None:  # noqa: FBT001 - see World.start
        super().__init__(name, world.gate)
        self.relay: Relay | None = None
        self.projector: Projector | None = None
        self._world = world
        self.relays = relay
        self.projects = projector
        self._source: MemorySource | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work."""
        self._task = self.begin(self._run())

    @property
    def ended(self) -> bool:
        """Whether it does nothing any more."""
        return self._task is None or self._task.done()

    async def stop(self) -> None:
        """End in an orderly way; raise what it failed with."""
        failures = await end([self._task] if self._task else [])
        for failure in failures:
            if failure is not None:
                raise failure

    async def kill(self, *, silently: bool = False) -> None:
        """Die at once.

        Args:
            silently: the servers are not told, as when a machine is gone.
        """
        self.life.end()
        await end([self._task] if self._task else [])
        if self._source is not None and not silently:
            self._world.database.detach(self._source)

    async def _run(self) -> None:
        world, life = self._world, self.life
        broker: Broker = DirectBroker() if world.shape.direct else MemoryBroker(world.log)
        broker = gated(broker, "broker", life)
        kind = PiecemealStore if world.shape.piecemeal else MemoryStore
        store: Store = gated(kind(world.library), "store", life)
        capture = await self._prepare(broker, store)
        jobs: list[Awaitable[None]] = []
        if self.projects:
            self.projector = self._make_projector(capture, broker, store)
        if self.relays:
            self.relay = self._make_relay(broker)
            jobs.append(self.relay.run())
        if self.projector is not None:
            elected = world.shape.direct and self.relay is not None
            jobs.append(self._run_elected() if elected else self.projector.run())
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            try:
                await end(tasks)
            finally:
                if self.projector is not None:
                    await self.projector.close()

    async def _prepare(self, broker: Broker, store: Store) -> Capture:
        world = self._world
        ledger = gated(MemoryLedger(world.database), "ledger", self.life)
        capture = await self._patiently(lambda: ledger.register(world.app, list(world.projections)))
        if self.relays:
            await self._patiently(lambda: ledger.capture(world.app))
        await self._patiently(lambda: broker.open(world.app, capture.partitions))
        await self._patiently(lambda: store.open(world.app))
        return capture

    async def _patiently(self, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        while True:
            try:
                return await attempt()
            except UnavailableError:
                await asyncio.sleep(0.5)

    def _make_projector(self, capture: Capture, broker: Broker, store: Store) -> Projector:
        world, life = self._world, self.life
        around = Surroundings(
            broker,
            store,
            gated(MemoryLedger(world.database), "ledger", life),
            gated(MemoryParking(world.database, _PAGE), "parking", life),
            gated(MemoryLeases(world.database, world.shape.lease_seconds), "leases", life),
            self.name,
            gated(world.clock, "clock", life),
            settle_delay=world.shape.settle_delay,
        )
        alone = world.shape.direct
        return Projector(world.projections, around, capture.partitions, alone=alone)

    def _make_relay(self, broker: Broker) -> Relay:
        world, life = self._world, self.life
        return Relay(
            world.app,
            self._make_source,
            broker,
            gated(MemoryLedger(world.database), "ledger", life),
            gated(world.clock, "clock", life),
            RelaySettings(retained_wal=world.shape.retained_wal),
            before_shipping=self._elected if world.shape.direct else None,
            applied=self.projector.newest if world.shape.direct and self.projector else None,
        )

    def _make_source(self, epoch: int) -> MemorySource:
        world = self._world
        self._source = MemorySource(
            world.database, epoch, world.shape.chunk, stutter=world.shape.stutter
        )
        return gated(self._source, "source", self.life)

    async def _elected(self, rewound: bool) -> None:  # noqa: FBT001 - the relay's callback
        if self.projector is not None and not rewound:
            await self.projector.seize()

    async def _run_elected(self) -> None:
        relay = self.relay
        if relay is not None and self.projector is not None:
            await relay.active.wait()
            await self.projector.run(lambda: relay.state != "standby")
