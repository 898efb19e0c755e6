"""Finds the events which make documents that a store refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from readside.core.errors import FencedError, UnwritableError
from readside.core.folding import Batch, Folder, Step
from readside.core.leases import Unit
from readside.ports.store import Outcome, Store


async def single_out(
    folder: Folder[Any], store: Store, unit: Unit, steps: Sequence[Step], error: UnwritableError
) -> list[Step]:
    """Apply the events of the refused documents one by one, and mark those that are refused.

    The documents run ahead of the checkpoint by that, and their positions say so. A marked step is a
    poison like one that cannot be read. No step is marked where the store takes each of them alone:
    two documents of one batch were in each other's way.

    Raises:
        FencedError: somebody else works on the unit.
    """
    marks: dict[int, Step] = {}
    for key in error.documents:
        for number, step in enumerate(steps):
            if step.key != key:
                continue
            refused = await _refused(folder, store, unit, step)
            if refused is not None:
                marks[number] = step._replace(event=None, error=refused)
                break
    return [marks.get(number, step) for number, step in enumerate(steps)]


async def _refused(
    folder: Folder[Any], store: Store, unit: Unit, step: Step
) -> UnwritableError | None:
    while True:
        (stored,) = await store.load(unit.projection, [step.key])
        writes = folder.fold([step], {step.key: stored}).writes
        if not writes:  # contained already, or a poison of another kind
            return None
        try:
            outcome = await store.apply(Batch(*unit, None, None, writes))
        except UnwritableError as error:
            return error
        if outcome is Outcome.APPLIED:
            return None
        if outcome is Outcome.FENCED:
            raise FencedError("the projection is being emptied")
