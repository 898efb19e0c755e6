"""Applies records to a store: load, fold, park what cannot go on, write; again on a conflict."""

from __future__ import annotations

import logging
from typing import Any

from readside.core.errors import FencedError
from readside.core.folding import Batch, Folded, Folder
from readside.core.folding import Step as FoldStep
from readside.core.leases import Unit
from readside.core.record import Checkpoint, Record
from readside.ports.ledger import Parked, Parking
from readside.ports.probe import probe
from readside.ports.store import Outcome, Store

log = logging.getLogger("readside.projector")


class Folds:
    """One unit's way from records to documents."""

    def __init__(self, unit: Unit, folder: Folder[Any], store: Store, parking: Parking) -> None:
        self._unit = unit
        self._folder = folder
        self._store = store
        self._parking = parking
        self._parked: set[str] = set()

    async def open(self) -> None:
        """Learn which documents are parked."""
        self._parked = set(await self._parking.parked(self._unit))

    async def apply(
        self, records: list[Record], expected: Checkpoint, checkpoint: Checkpoint
    ) -> None:
        """Bring the store from one checkpoint to the next.

        Raises:
            FencedError: the store's checkpoint is another one; nothing was written.
            UnavailableError: a server is away; what was written, if anything, was everything.
        """
        steps = self._folder.route(records)
        while True:
            folded = await self._fold(steps)
            if folded is None:
                continue  # an operator freed a document meanwhile
            batch = Batch(*self._unit, expected, checkpoint, folded.writes)
            outcome = await self._store.apply(batch)
            if outcome is Outcome.APPLIED:
                return
            if outcome is Outcome.FENCED:
                raise FencedError("the checkpoint is not as it was left")
            probe("projector.conflict")

    async def _fold(self, steps: list[FoldStep]) -> Folded | None:
        parked = self._parked
        free = [step for step in steps if step.key not in parked] if parked else steps
        keys = list(dict.fromkeys(step.key for step in free))
        loaded = await self._store.load(self._unit.projection, keys)
        probe("projector.loaded")
        folded = self._folder.fold(free, dict(zip(keys, loaded, strict=True)))
        if folded.poisons or len(free) < len(steps):
            waiting = [step for step in steps if step.key in parked] if parked else []
            if not await self._park(folded, waiting):
                return None
        return folded

    async def _park(self, folded: Folded, waiting: list[FoldStep]) -> bool:
        """Put away what cannot go on, before the checkpoint moves past it."""
        for poison in folded.poisons:
            log.error(
                "%s:%s is parked at %s: %s",
                self._unit.projection, poison.step.key, poison.step.record.position, poison.error,
            )  # fmt: skip
        away = [Parked(poison.step, poison.error) for poison in folded.poisons]
        away += [Parked(step, None) for step in (*folded.held, *waiting)]
        away.sort(key=lambda parked: parked.step.record.position)
        freed = await self._parking.park(self._unit, away)
        probe("projector.parked")
        self._parked |= {poison.step.key for poison in folded.poisons}
        self._parked -= freed
        return not freed
