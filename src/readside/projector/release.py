"""Folds events which were parked, in order and once; for a retry, and after a store went back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from readside.core.errors import DecodeError, UnwritableError
from readside.core.folding import (
    UNROUTED,
    Batch,
    Folded,
    Folder,
    Step,
    Stored,
    contains,
    positions_of,
)
from readside.core.leases import Unit
from readside.core.position import Position
from readside.ports.ledger import Waiting
from readside.ports.store import Outcome, Store


class Released(NamedTuple):
    """How far a document's parked events could be applied."""

    #: Everything up to here is applied, or of no concern any more; None for nothing.
    until: Position | None
    #: The step that failed, and why.
    failed: Step | None = None
    error: Exception | None = None
    base: str = ""
    #: Whether the document does not contain yet what comes before: the projector has to bring it.
    too_early: bool = False


async def release(
    folder: Folder[Any], store: Store, unit: Unit, key: str, events: Sequence[Waiting]
) -> Released:
    """Apply the parked events of one document, or of one event key whose documents were unknown.

    Safe to interrupt at any moment and to run again: what a document contains is recognised, by its
    positions or, for events out of their turn, by a mark of each event. Never overtakes what the
    projector still has to bring, after a crash or to a store that went back: each event waits for
    the position which its document had when it came. The checkpoint stays.

    Raises:
        UnavailableError, RefusedError: the store is away, or refuses.
    """
    if key.startswith(UNROUTED):
        return await _one_by_one(folder, store, unit, events)
    while True:
        (stored,) = await store.load(unit.projection, [key])
        try:
            reached = positions_of(stored.positions).get(unit.partition, "")
        except DecodeError as garbled:
            routed = folder.route([event.record for event in events])
            mine = [step for step in routed if step.key == key]
            if mine:
                return Released(None, mine[0], garbled)
            return Released(events[-1].record.position)
        ready = _ready(events, reached)
        too_early = len(ready) < len(events)
        # The code may have been mended to route an event elsewhere, or nowhere: then it is done here.
        records = [event.record for event in ready]
        steps = [step for step in folder.route(records) if step.key == key]
        folded = folder.fold(steps, {key: stored})
        try:
            if await _written(store, unit, folded):
                break
        except UnwritableError as refusal:
            new = [step for step in steps if not _contained(step, stored)]
            if len(new) == 1:
                done = [step.record.position for step in steps if _contained(step, stored)]
                return Released(max(done, default=None), new[0], refusal, reached)
            half = new[len(new) // 2].record.position
            earlier = [event for event in events if event.record.position < half]
            released = await release(folder, store, unit, key, earlier)
            if released.failed is not None:
                return released
    if not folded.poisons:
        until = records[-1].position if records else None
        return Released(until, too_early=too_early)
    failed, error, base = folded.poisons[0]
    done = [
        record.position
        for record in records
        if record.position < failed.record.position
        or contains(stored.positions, record.partition, record.position)
    ]
    return Released(max(done, default=None), failed, error, base)


def _contained(step: Step, stored: Stored) -> bool:
    return contains(stored.positions, step.record.partition, step.record.position)


def _ready(events: Sequence[Waiting], reached: str) -> list[Waiting]:
    """Those events whose turn it is in a document that has reached a position."""
    ready: list[Waiting] = []
    for event in events:
        if reached < event.base:
            break
        ready.append(event)
        reached = max(reached, event.record.position.encode())
    return ready


async def _one_by_one(
    folder: Folder[Any], store: Store, unit: Unit, events: Sequence[Waiting]
) -> Released:
    until: Position | None = None
    for record, _ in events:
        steps = folder.route([record])
        if len(steps) == 1 and steps[0].error is not None:
            return Released(until, steps[0], steps[0].error)
        keys = [step.key for step in steps]
        while True:
            loaded = await store.load(unit.projection, keys)
            folded = folder.fold(steps, dict(zip(keys, loaded, strict=True)), late=True)
            try:
                if await _written(store, unit, folded):
                    break
            except UnwritableError as error:
                failed = next(step for step in steps if step.key in error.documents)
                return Released(until, failed, error)
        if folded.poisons:
            return Released(until, *folded.poisons[0])
        until = record.position
    return Released(until)


async def _written(store: Store, unit: Unit, folded: Folded) -> bool:
    if not folded.writes:
        return True
    batch = Batch(*unit, None, None, folded.writes)
    return await store.apply(batch) is Outcome.APPLIED
