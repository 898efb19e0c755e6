"""Finds the events which make documents that a store refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from readside.core.errors import FencedError, UnwritableError
from readside.core.folding import Batch, Folder, Poison, Step
from readside.ports.store import Outcome, Store


async def single_out(
    folder: Folder[Any], store: Store, batch: Batch, steps: Sequence[Step], error: UnwritableError
) -> list[Step]:
    """Apply the events of the refused documents one by one, and mark those that are refused.

    The documents run ahead of the checkpoint by that, and their positions say so. A marked step is a
    poison like one that cannot be read. No step is marked where the store takes each of them alone:
    two documents of one batch were in each other's way.

    Args:
        folder: makes the documents.
        store: the store.
        batch: what was refused; its checkpoint is what the store must still hold.
        steps: what the batch was made of; none that waits behind a parked event.
        error: the refusal.

    Raises:
        FencedError: somebody else works on the unit.
    """
    marks: dict[int, Step] = {}
    for key in error.documents:
        for number, step in enumerate(steps):
            if step.key != key:
                continue
            fate = await _try(folder, store, batch, step)
            if isinstance(fate, UnwritableError):
                marks[number] = step._replace(event=None, error=fate)
            if fate is not None:
                break  # what comes behind must not overtake it
    return [marks.get(number, step) for number, step in enumerate(steps)]


async def _try(
    folder: Folder[Any], store: Store, batch: Batch, step: Step
) -> UnwritableError | Poison | None:
    """Apply one event; say what keeps it out of its document, None if it is in."""
    while True:
        (stored,) = await store.load(batch.projection, [step.key])
        folded = folder.fold([step], {step.key: stored})
        if folded.poisons:  # of another kind: the next fold of all finds it again
            return folded.poisons[0]
        if not folded.writes:  # contained already
            return None
        alone = batch._replace(checkpoint=batch.expected, writes=folded.writes, parked=())
        try:
            outcome = await store.apply(alone)
        except UnwritableError as refused:
            return refused
        if outcome is Outcome.APPLIED:
            return None
        if outcome is Outcome.FENCED:
            raise FencedError("the checkpoint is not as it was left")
