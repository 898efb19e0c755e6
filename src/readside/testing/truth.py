"""What the committed history has to come to, and where a store is anything else.

The truth is folded from the committed transactions by plain functions, beside the product's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from readside.adapters.memory.database import Transaction
from readside.core.partition import partition_of
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.testing.world import World


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


def _fold_wrote_and(*types: str) -> Callable[[Documents, Step], None]:
    def fold(documents: Documents, step: Step) -> None:
        if step.type in ("thing.wrote", *types):
            _fold_trail(documents, step)

    return fold


_FOLDS: Mapping[str, Callable[[Documents, Step], None]] = {
    "last": _fold_last,
    "count": _fold_count,
    "trail": _fold_wrote_and("thing.removed", "thing.spoiled"),
    "joined": _fold_joined,
    "fragile": _fold_wrote_and("thing.spoiled"),
    "mortal": _fold_wrote_and("thing.deadly"),
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


class Account(NamedTuple):
    """What a projection has, and what it has to have."""

    expected: Documents
    actual: Documents

    @property
    def wrong(self) -> list[str]:
        """The keys of documents that are not what they have to be."""
        expected, actual = self
        keys = sorted(expected.keys() | actual.keys())
        return [key for key in keys if actual.get(key) != expected.get(key)]


def account(world: World, projection: str, *, final: bool = False) -> Account:
    """Compare a projection with the committed history, as far as its own checkpoints claim it.

    Parked events are not in their documents, and nothing after them is. But where an operator has
    retried or given up events of a document, these may be in it or not: of what a dead retry did
    not note down, and of what a store that went back lost, the document itself is the witness.

    Args:
        world: with the store.
        projection: one of its projections.
        final: nothing is under way any more: what was committed and is not parked has to be there,
            and what a retry has noted down too.
    """
    notes = world.database.tables.notes
    if notes is None:
        return Account({}, {})
    history = steps(world.database.tables.transactions, notes.epoch, notes.partitions)
    checkpoints = None if final else world.checkpoints(projection)
    starts = world.acts.starts
    actual = stored(world, projection)
    parked, touched = waiting(world, projection), _touched(world, projection)
    perhaps = _perhaps(world, projection, final=final) if touched else set(parked)
    free = [
        step
        for step in history
        if _begun(starts.get((projection, step.partition)), step)
        and (
            # A retry may be ahead of the checkpoint of a store that went back.
            step.value["id"] in touched and _contains(actual, step)
            if (step.partition, step.position) in perhaps
            else _reached(checkpoints, step)
        )
    ]
    return Account(truth(projection, free), actual)


def _touched(world: World, projection: str) -> set[str]:
    return {key for name, key in world.acts.touched if name == projection}


def _perhaps(world: World, projection: str, *, final: bool) -> set[tuple[int, Position]]:
    """The events that a projection of which events were retried may have, or not."""
    tables = world.database.tables
    retried = () if final else (name for name in tables.retried if name[0].projection == projection)
    discarded = {(number, at) for name, number, at in world.acts.discarded if name == projection}
    return (
        {(unit.partition, at) for unit, _, at in retried}
        | discarded
        | waiting(world, projection).keys()
    )


def _contains(documents: Documents, step: Step) -> bool:
    document = documents.get(step.value["id"])
    return document is not None and step.value["n"] in document["numbers"]


def differences(world: World, projections: Iterable[str] | None = None) -> list[str]:
    """Where the store is not exactly what its own checkpoints say: at any moment there is none.

    A store that applies document by document runs ahead of its checkpoints, so it is looked at
    only where they are at the end.
    """
    if world.shape.piecemeal and world.behind():
        return []
    found = []
    for name in world.projections if projections is None else projections:
        expected, actual = compared = account(world, name)
        found += _overtaking(world, name, actual)
        found += [
            f"{name}:{key} is {actual.get(key)}, not {expected.get(key)}" for key in compared.wrong
        ]
    return found


def waiting(world: World, projection: str) -> dict[tuple[int, Position], str]:
    """The keys of the documents that events are parked for, by partition and position."""
    return {
        (unit.partition, position): key
        for unit, key, position in world.database.tables.parked_events
        if unit.projection == projection
    }


def _overtaking(world: World, projection: str, actual: Documents) -> list[str]:
    """What a document contains although it came after an event that waits for it."""
    notes = world.database.tables.notes
    first: dict[str, Position] = {}
    for (_, position), key in waiting(world, projection).items():
        first[key] = min(position, first.get(key, position))
    if notes is None or not first or projection not in ("fragile", "mortal"):
        return []
    history = steps(world.database.tables.transactions, notes.epoch, notes.partitions)
    return [
        f"{projection}:{step.value['id']} contains {step.value['n']}, which has to wait"
        for step in history
        if step.value["id"] in first
        and (projection, step.value["id"]) not in world.acts.touched
        and step.position > first[step.value["id"]]
        and _contains(actual, step)
    ]


def _begun(start: Position | None, step: Step) -> bool:
    return start is None or step.position > start


def _reached(checkpoints: Mapping[int, Checkpoint] | None, step: Step) -> bool:
    if checkpoints is None:
        return True
    checkpoint = checkpoints.get(step.partition)
    return checkpoint is not None and step.position <= checkpoint.position
