"""Events and projections which show every loss, repetition and reordering, and what they must come to.

The truth is folded from the committed transactions by plain functions, beside the product's code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from readside.adapters.memory.database import Transaction
from readside.core.event import Event
from readside.core.partition import partition_of
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.core.view import View
from readside.testing.world import World


class Wrote(Event, key="id", type="thing.wrote"):
    """Something was written, with a number that is used once."""

    id: str
    n: int
    target: str


class Removed(Event, key="id", type="thing.removed"):
    """A thing is gone; it may come back."""

    id: str
    n: int


class Spoiled(Event, key="id", type="thing.spoiled"):
    """What the handler of the fragile projection cannot take."""

    id: str
    n: int


class Last(View):
    """The last write wins."""

    n: int


class Count(View):
    """How many, and their sum: a repetition or a loss changes it for good."""

    count: int
    total: int


class Trail(View):
    """Everything in its order."""

    numbers: list[int]


class Joined(View):
    """A document that several partitions feed: what came from each thing, in its order."""

    parts: dict[str, list[int]]


def projections() -> dict[str, Projection[Any]]:
    """One of each kind."""
    made: list[Projection[Any]] = [_last(), _count(), _trail(), _joined(), _fragile()]
    return {projection.name: projection for projection in made}


def _last() -> Projection[Last]:
    last = Projection("last", Last)
    last.on(Wrote)(lambda event: Last(event.n))
    last.on(Removed)(lambda _: None)
    return last


def _count() -> Projection[Count]:
    count = Projection("count", Count)

    @count.on(Wrote)
    def wrote(event: Wrote, view: Count | None) -> Count:
        return Count(view.count + 1, view.total + event.n) if view else Count(1, event.n)

    count.on(Removed)(lambda _: None)
    return count


def _appended(event: Any, view: Trail | None) -> Trail:
    return Trail([*(view.numbers if view else []), event.n])


def _trail() -> Projection[Trail]:
    trail = Projection("trail", Trail)
    for event in (Wrote, Removed, Spoiled):
        trail.on(event)(_appended)
    return trail


def _joined() -> Projection[Joined]:
    joined = Projection("joined", Joined)

    @joined.on(Wrote, key="target")
    def wrote(event: Wrote, view: Joined | None) -> Joined:
        parts = dict(view.parts) if view else {}
        parts[event.id] = [*parts.get(event.id, []), event.n]
        return Joined(parts)

    return joined


def _fragile() -> Projection[Trail]:
    fragile = Projection("fragile", Trail)
    fragile.on(Wrote)(_appended)

    @fragile.on(Spoiled)
    def spoiled(event: Spoiled) -> Trail:
        raise ValueError(f"cannot take {event.n}")

    return fragile


class Step(NamedTuple):
    """One event of the history, as the truth sees it."""

    position: Position
    partition: int
    type: str
    value: dict[str, Any]


def steps(history: Iterable[Transaction], epoch: int, partitions: int) -> list[Step]:
    """The committed history, event by event."""
    return [step for transaction in history for step in _steps(transaction, epoch, partitions)]


@lru_cache(maxsize=4096)
def _steps(transaction: Transaction, epoch: int, partitions: int) -> tuple[Step, ...]:
    """Remembered: a run looks at its history again and again."""
    return tuple(
        Step(
            Position(epoch, transaction.lsn, ordinal),
            partition_of(row.key, partitions),
            row.type,
            msgspec.json.decode(row.payload),
        )
        for ordinal, row in enumerate(transaction.rows, 1)
    )


Documents = dict[str, Any]


def _fold_last(documents: Documents, step: Step) -> None:
    if step.type == "thing.wrote":
        documents[step.value["id"]] = {"n": step.value["n"]}
    elif step.type == "thing.removed":
        documents.pop(step.value["id"], None)


def _fold_count(documents: Documents, step: Step) -> None:
    if step.type == "thing.wrote":
        document = documents.setdefault(step.value["id"], {"count": 0, "total": 0})
        document["count"] += 1
        document["total"] += step.value["n"]
    elif step.type == "thing.removed":
        documents.pop(step.value["id"], None)


def _fold_trail(documents: Documents, step: Step) -> None:
    documents.setdefault(step.value["id"], {"numbers": []})["numbers"].append(step.value["n"])


def _fold_joined(documents: Documents, step: Step) -> None:
    if step.type == "thing.wrote":
        parts = documents.setdefault(step.value["target"], {"parts": {}})["parts"]
        parts.setdefault(step.value["id"], []).append(step.value["n"])


def _fold_fragile(documents: Documents, step: Step) -> None:
    if isinstance(documents.get(step.value["id"]), str):
        return  # it stays as wrong as it is
    if step.type == "thing.wrote":
        _fold_trail(documents, step)
    elif step.type == "thing.spoiled":
        documents[step.value["id"]] = f"{step.value['n']} neither parked nor waiting"


_FOLDS: Mapping[str, Callable[[Documents, Step], None]] = {
    "last": _fold_last,
    "count": _fold_count,
    "trail": _fold_trail,
    "joined": _fold_joined,
    "fragile": _fold_fragile,
}


def truth(projection: str, some: Iterable[Step]) -> Documents:
    """The documents that these events come to."""
    documents: Documents = {}
    fold = _FOLDS[projection]
    for step in some:
        fold(documents, step)
    return documents


def stored(world: World, projection: str) -> Documents:
    """The documents that the store has."""
    prefix = f"{projection}:"
    return {
        name.removeprefix(prefix): msgspec.json.decode(document)
        for name, document in world.library.shelves.documents.items()
        if name.startswith(prefix)
    }


def differences(world: World) -> list[str]:
    """Where the store is not exactly what its own checkpoints say: at any moment there is none.

    Parked events are not in their documents, and nothing after them is. A store that applies
    document by document runs ahead of its checkpoints, so it is looked at only where they are
    at the end.
    """
    notes = world.database.tables.notes
    if notes is None or (world.shape.piecemeal and world.behind()):
        return []
    history = steps(world.database.tables.transactions, notes.epoch, notes.partitions)
    found = []
    for name in world.projections:
        checkpoints = world.checkpoints(name)
        parked = waiting(world, name)
        reached = [step for step in history if _reached(checkpoints, step)]
        free = [step for step in reached if (step.partition, step.position) not in parked]
        found += _overtaking(name, parked, free)
        expected, actual = truth(name, free), stored(world, name)
        found += [
            f"{name}:{key} is {actual.get(key)}, not {expected.get(key)}"
            for key in sorted(expected.keys() | actual.keys())
            if actual.get(key) != expected.get(key)
        ]
    return found


def waiting(world: World, projection: str) -> dict[tuple[int, Position], str]:
    """The keys of the documents that events are parked for, by partition and position."""
    return {
        (unit.partition, position): key
        for unit, key, position in world.database.tables.parked_events
        if unit.projection == projection
    }


def _overtaking(
    projection: str, parked: Mapping[tuple[int, Position], str], free: Iterable[Step]
) -> list[str]:
    first: dict[str, Position] = {}
    for (_, position), key in parked.items():
        first[key] = min(position, first.get(key, position))
    return [
        f"{projection}:{step.value['id']} contains {step.value['n']}, which has to wait"
        for step in free
        if step.type != "thing.removed"
        and step.position > first.get(step.value["id"], step.position)
    ]


def _reached(checkpoints: Mapping[int, Checkpoint], step: Step) -> bool:
    checkpoint = checkpoints.get(step.partition)
    return checkpoint is not None and step.position <= checkpoint.position


class Writer:
    """Commits events of a few things, at random out of a seed.

    Args:
        world: whose database to write to.
        chance: where chance comes from.
        things: how many things there are.
        spoil: the probability that an event is one which cannot be handled.
    """

    def __init__(
        self, world: World, chance: random.Random, things: int = 5, spoil: float = 0.0
    ) -> None:
        self._world = world
        self._chance = chance
        self._things = things
        self._spoil = spoil
        self.n = 0

    def event(self) -> Event:
        """The next event."""
        self.n += 1
        chance = self._chance
        thing = f"thing-{chance.randrange(self._things)}"
        if chance.random() < self._spoil:
            return Spoiled(thing, self.n)
        if chance.random() < 0.15:
            return Removed(thing, self.n)
        return Wrote(thing, self.n, f"target-{chance.randrange(2)}")

    def commit(self, most: int = 4) -> None:
        """Commit a transaction of a few events."""
        self._world.database.commit(*(self.event() for _ in range(self._chance.randint(1, most))))
