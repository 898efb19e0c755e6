"""A person at the command line: retries, gives up and resets, and may die in the middle of it.

The work is done by readside.operate; only the notes are the model's.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence

from readside.adapters.memory.database import Tables
from readside.adapters.memory.leases import MemoryLeases
from readside.adapters.memory.ledger import MemoryLedger
from readside.adapters.memory.parking import MemoryParking, Name
from readside.adapters.memory.store import MemoryStore, PiecemealStore
from readside.core.errors import ReadsideError
from readside.core.folding import UNROUTED
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.operate.dead_letters import ParkedDocument, key_of, retry
from readside.operate.reset import HELD, begin_again
from readside.ports.ending import end
from readside.ports.ledger import Lease, Waiting
from readside.ports.probe import probe
from readside.ports.store import Store
from readside.testing.faults import Life, gated
from readside.testing.world import Body, World

#: How often people try, and the seconds between: together longer than what a killed reset holds, `HELD`.
_PERSISTENCE = 40
_PAUSE = HELD / 20


class Operator(Body):
    """One call of the command line; works until it has done what it was asked for, or died."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name, world.gate)
        self._world = world
        kind = PiecemealStore if world.shape.piecemeal else MemoryStore
        self._kind: MemoryStore = kind(world.library)
        self._store: Store = gated(self._kind, "store", self.life)
        self._letters = _Letters(world, self.life)
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin; what fails is not tried again."""
        self._task = self.begin(self._live(work))

    async def _live(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._kind.open(self._world.app)
            await work()
        except ReadsideError:
            pass  # it is printed, and the person tries again some other time

    @property
    def ended(self) -> bool:
        """Whether it does nothing any more."""
        return self._task is None or self._task.done()

    async def kill(self) -> None:
        """End it as by SIGKILL."""
        self.life.end()
        await end([self._task] if self._task else [])

    async def wait(self, seconds: float) -> None:
        """Let it work for a while; one that has died is buried."""
        if self._task is None:
            return
        died = asyncio.ensure_future(self.died.wait())
        try:
            await asyncio.wait(
                {self._task, died}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await end([died])
        if self.died.is_set() or self.ended:
            await self.kill()

    def documents(self) -> list[ParkedDocument]:
        """What `readside dead-letters` shows."""
        return self._letters.find()

    async def retry(self, document: ParkedDocument) -> None:
        """``readside dead-letters retry``."""
        self._world.acts.touched.add((document.projection, document.key))
        projection = self._world.projections[document.projection]
        await retry(self._letters, document, projection, self._store)

    async def retry_all(self) -> None:
        """``readside dead-letters retry --all``."""
        for document in self.documents():
            await self.retry(document)

    async def discard(self, document: ParkedDocument, *, whole: bool) -> None:
        """``readside dead-letters discard``."""
        self._world.acts.touched.add((document.projection, document.key))
        await self._letters.discard(document, whole=whole)

    async def give_up(self, projection: str) -> None:
        """``readside reset --give-up``."""
        world = self._world
        world.acts.shaken.add(projection)
        world.acts.halfway.add(projection)
        database = world.database

        async def forget_notes(worker: str, held: Sequence[Lease]) -> bool:
            await self.life.before("notes.forget")
            tables = await database.reach()
            for unit, token, _ in held:
                there = tables.leases.get(unit)
                if there is None or (there.owner, there.token) != (worker, token):
                    return False
            tables.forget_notes(projection)
            return True

        await begin_again(
            world.app,
            projection,
            gated(MemoryLedger(database), "ledger", self.life),
            gated(MemoryLeases(database, HELD), "leases", self.life),
            gated(_Emptied(self._kind, world), "store", self.life),
            forget_notes,
            give_up=True,
        )
        world.acts.halfway.discard(projection)
        if not world.acts.restarting:
            world.acts.shaken.discard(projection)


async def persist(
    world: World, job: Callable[[Operator], Awaitable[None]], done: Callable[[], bool]
) -> None:
    """Have something done again and again, by people who see that it is not done yet."""
    for number in range(_PERSISTENCE):
        if done():
            return
        operator = Operator(world, f"persistent-{number}")
        operator.start(functools.partial(job, operator))
        await operator.wait(60.0)
        await operator.kill()
        await asyncio.sleep(_PAUSE)
        await world.revive()


class _Emptied(MemoryStore):
    """Notes where an emptied projection begins, in the same instant."""

    def __init__(self, inner: MemoryStore, world: World) -> None:
        super().__init__(world.library)
        self._inner = inner
        self._world = world

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        return await self._inner.checkpoints(projection, partitions)

    async def reset(self, projection: str, checkpoints: Mapping[int, Checkpoint] | None) -> int:
        removed = await self._inner.reset(projection, checkpoints)
        self._world.acts.begin_again(projection, checkpoints or {})
        return removed


class _Noted(MemoryParking):
    """Notes what was given up in the same instant: more may come in until then."""

    def __init__(self, world: World) -> None:
        super().__init__(world.database)
        self._acts = world.acts

    def _give_up(
        self, tables: Tables, unit: Unit, key: str, position: Position, *, whole: bool
    ) -> list[Name]:
        gone = super()._give_up(tables, unit, key, position, whole=whole)
        self._acts.discarded |= {(unit.projection, unit.partition, at) for _, _, at in gone}
        return gone


class _Letters:
    """The parked documents in the model; see operate.dead_letters.Letters."""

    def __init__(self, world: World, life: Life) -> None:
        self._database = world.database
        self._life = life
        self._memory = _Noted(world)
        self._parking: MemoryParking = gated(self._memory, "parking", life)

    def find(self) -> list[ParkedDocument]:
        tables = self._database.tables
        return [self._described(unit, key) for unit, key in sorted(tables.parked_documents)]

    def _described(self, unit: Unit, key: str) -> ParkedDocument:
        tables = self._database.tables
        waiting = sorted(name[2] for name in tables.parked_events if name[:2] == (unit, key))
        return ParkedDocument(
            projection=unit.projection,
            partition=unit.partition,
            key=key.removeprefix(UNROUTED),
            unrouted=key.startswith(UNROUTED),
            error_type="",
            error="",
            attempts=1,
            parked_at="",
            tried_at="",
            events=len(waiting),
            position=waiting[0].encode() if waiting else "",
            event_type="",
            parking=tables.parked_documents[unit, key].name,
        )

    async def waiting(self, document: ParkedDocument, limit: int) -> Sequence[Waiting]:
        return (await self._parking.waiting(*_name(document)))[:limit]

    async def retried(self, document: ParkedDocument) -> Sequence[Waiting]:
        return await self._parking.remembered(*_name(document))

    async def done(self, document: ParkedDocument, until: Position) -> int:
        await self._parking.applied(*_name(document), until)
        return 1

    async def free(self, document: ParkedDocument, store: Store) -> bool:
        await self._life.before("parking.free")
        async with self._memory.freeing(*_name(document)) as idle:
            if idle:
                unit, key = _name(document)
                await store.unpark(*unit, key, document.parking)
                probe("dead_letters.freed")
            await self._life.before("parking.commit")
        await self._life.after("parking.commit")
        return idle

    async def note(self, document: ParkedDocument, error: Exception) -> None:
        del document, error  # nobody reads it here

    async def discard(self, document: ParkedDocument, *, whole: bool) -> int:
        at = Position.decode(document.position) if document.position else Position(0, 0, 0)
        return await self._parking.discard(*_name(document), at, whole=whole)


def _name(document: ParkedDocument) -> tuple[Unit, str]:
    return Unit(document.projection, document.partition), key_of(document)
