"""A table refuses a batch: while its events are tried one by one, no other of them is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

import readside
from readside.adapters.memory.database import Database
from readside.adapters.memory.leases import MemoryLeases
from readside.adapters.memory.parking import MemoryParking
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.errors import FencedError
from readside.core.event import encode
from readside.core.folding import Folder
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint, Record
from readside.projector.folds import Folds
from readside.projector.release import release
from readside.testing.faults import gated

UNIT = Unit("sum", 0)


class Moved(readside.Event, key="id"):
    id: str
    change: int


class Sum(readside.View):
    total: int = 0


def place(nth: int) -> Position:
    return Position(1, nth, 1)


def at(nth: int, token: int = 1) -> Checkpoint:
    """The checkpoint after record number `nth`."""
    return Checkpoint(place(nth), nth, "", token)


def history(*moves: tuple[str, int]) -> list[Record]:
    """One batch: documents and what changes them."""
    return [
        Record(
            0, place(nth), place(nth - 1) if nth > 1 else BEGINNING, nth, str(nth),
            Moved.__event_type__, id_, 1, encode(Moved(id_, change)), 0,
        )
        for nth, (id_, change) in enumerate(moves, 1)
    ]  # fmt: skip


class AtApply:
    """A gate which lets something else happen first, before a batch is applied for the nth time."""

    def __init__(self, nth: int, act: Callable[[], Awaitable[Any]]) -> None:
        self.left = nth
        self._act = act

    async def before(self, call: str) -> None:
        self.left -= call == "store.apply"
        if call == "store.apply" and self.left == 0:
            await self._act()

    async def after(self, call: str) -> None:
        pass


class World:
    """One projection in a real table; what is parked is noted in memory."""

    def __init__(self, servers: Any, app: str, constraint: str) -> None:
        self.mended = False
        table = readside.Table(constraints=(constraint,))
        projection = Projection("sum", Sum, table=table)

        @projection.on
        def moved(event: Moved, found: Sum | None) -> Sum:
            if event.change == 13 and not self.mended:
                raise ValueError("unlucky")
            return Sum((found or Sum()).total + event.change)

        self.app = app
        self.folder = Folder(projection)
        self.store = PostgresStore(servers.write_store)
        self.store.declare({"sum": projection})
        database = Database(app, 1)
        database.install()
        self.leases = MemoryLeases(database, 5)
        self.parking = MemoryParking(database)

    async def begin(self) -> None:
        await self.store.prepare(self.app)
        await self.store.open(self.app, ["sum"])
        await self.store.reset("sum", {0: at(0)})

    async def owner(self, store: Any, until: Checkpoint) -> Folds:
        """A new owner of the partition."""
        (lease,) = await self.leases.seize("a worker", [UNIT])
        folds = Folds(UNIT, self.folder, store, self.parking)
        await folds.open(until.position, lease.token)
        return folds

    async def total(self, key: str) -> int:
        (document,) = (await self.store.read("sum", [key])).documents
        return msgspec.json.decode(document or b"{}", type=Sum).total


@pytest.fixture
async def make(servers: Any, unique: str) -> Any:
    made: list[World] = []

    async def make(constraint: str) -> World:
        made.append(World(servers, unique, constraint))
        await made[0].begin()
        return made[0]

    yield make
    for world in made:
        await world.store.close()


# The first batch is refused, then its ten events come one by one.
@pytest.mark.parametrize("nth", range(1, 13))
async def test_a_reset_meanwhile_fences(make: Any, nth: int) -> None:
    world = await make("CHECK (total < 10)")
    records = history(*[("1", 1)] * 10)
    gate = AtApply(nth, lambda: world.store.reset("sum", {0: at(0, token=2)}))
    folds = await world.owner(gated(world.store, "store", gate), at(0))
    with pytest.raises(FencedError):
        await folds.apply(records, at(0), at(10))
    assert gate.left == 0
    assert await world.total("1") == 0
    folds = await world.owner(world.store, at(0))
    await folds.apply(records, at(0, token=2), at(10, token=3))
    assert await world.total("1") == 9
    assert [one.record.nth for one in await world.parking.waiting(UNIT, "1")] == [10]


async def test_nothing_overtakes_a_poison_of_another_kind(make: Any) -> None:
    world = await make("UNIQUE (total)")
    records = history(("1", 1), ("2", 1), ("2", 13), ("2", 1))
    folds = await world.owner(world.store, at(0))
    await folds.apply(records, at(0), at(4))
    waiting = {key: await world.parking.waiting(UNIT, key) for key in "12"}
    assert [one.record.nth for one in waiting["2"]] == [3, 4]
    world.mended = True
    for key in "21":
        released = await release(world.folder, world.store, UNIT, key, waiting[key])
        assert released.error is None
    assert await world.total("2") == 15
    assert await world.total("1") == 1
