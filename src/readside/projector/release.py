"""Folds events which were parked, in order and once; for a retry, and after a store went back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from readside.core.errors import FencedError
from readside.core.folding import UNROUTED, Batch, Folded, Folder, Step, contains
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.record import Record
from readside.ports.store import Outcome, Store


_TOO_EARLY = "the projector has not come to the parked event again"
_LATER = "retry when it has caught up; see: readside status"


class Released(NamedTuple):
    """How far a document's parked events could be applied."""

    #: Everything up to here is applied, or of no concern any more; None for nothing.
    until: Position | None
    #: The step that failed, if one did.
    failed: Step | None
    #: Why not everything could be applied.
    error: Exception | None


async def release(
    folder: Folder[Any], store: Store, unit: Unit, key: str, records: Sequence[Record]
) -> Released:
    """Apply the parked events of one document, or of one event key whose documents were unknown.

    Safe to interrupt at any moment and to run again: what a document contains is recognised, by its
    positions or, for events out of their turn, by a mark of each event. The checkpoint stays.

    Raises:
        UnavailableError, RefusedError: the store is away, or refuses.
    """
    if key.startswith(UNROUTED):
        return await _one_by_one(folder, store, unit, records)
    while True:
        (stored,) = await store.load(unit.projection, [key])
        # After the load: if the store went back before it, this tells; if it does so after it,
        # the document is another one, and the write conflicts.
        reached = await _reached(store, unit, records)
        if not reached:
            return Released(None, None, FencedError(_TOO_EARLY, mend=_LATER))
        # The code may have been mended to route an event elsewhere, or nowhere: then it is done here.
        steps = [step for step in folder.route(reached) if step.key == key]
        folded = folder.fold(steps, {key: stored})
        if await _written(store, unit, folded):
            break
    if not folded.poisons:
        return Released(reached[-1].position, None, None)
    failed, error = folded.poisons[0]
    done = [
        record.position
        for record in reached
        if record.position < failed.record.position
        or contains(stored.positions, record.partition, record.position)
    ]
    return Released(max(done, default=None), failed, error)


async def _reached(store: Store, unit: Unit, records: Sequence[Record]) -> list[Record]:
    """Those which the projector has passed: what comes before them is in the document by now.

    An event is parked before the checkpoint passes it, and a store may go back: the document
    may still lack earlier events, which would then count as contained.
    """
    found = (await store.checkpoints(unit.projection, [unit.partition])).get(unit.partition)
    return [record for record in records if found and record.position <= found.position]


async def _one_by_one(
    folder: Folder[Any], store: Store, unit: Unit, records: Sequence[Record]
) -> Released:
    until: Position | None = None
    for record in records:
        steps = folder.route([record])
        if len(steps) == 1 and steps[0].error is not None:
            return Released(until, steps[0], steps[0].error)
        keys = [step.key for step in steps]
        while True:
            loaded = await store.load(unit.projection, keys)
            folded = folder.fold(steps, dict(zip(keys, loaded, strict=True)), late=True)
            if await _written(store, unit, folded):
                break
        if folded.poisons:
            return Released(until, *folded.poisons[0])
        until = record.position
    return Released(until, None, None)


async def _written(store: Store, unit: Unit, folded: Folded) -> bool:
    if not folded.writes:
        return True
    batch = Batch(*unit, None, None, folded.writes)
    return await store.apply(batch) is Outcome.APPLIED
