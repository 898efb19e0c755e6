"""Applies records to a store: load, fold, park what cannot go on, write; again on a conflict."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from typing import Any

from readside.core.batching import Limits
from readside.core.errors import FencedError, UnwritableError
from readside.core.folding import UNROUTED, Batch, Folded, Folder, Stored
from readside.core.folding import Step as FoldStep
from readside.core.leases import Unit
from readside.core.overwriting import overwritten
from readside.core.position import Position
from readside.core.record import Checkpoint, Record
from readside.ports.ledger import Hold, Parked, Parking, Waiting
from readside.ports.probe import probe
from readside.ports.store import Outcome, Store
from readside.projector.release import Released, release
from readside.projector.unwritable import single_out

log = logging.getLogger("readside.projector")


class Folds:
    """One unit's way from records to documents."""

    def __init__(self, unit: Unit, folder: Folder[Any], store: Store, parking: Parking) -> None:
        self._unit = unit
        self._folder = folder
        self._store = store
        self._parking = parking
        self._parked: dict[str, Hold] = {}
        #: Documents whose retried events were written after the checkpoint. A store that goes back
        #: behind such a write alone cannot be told by its checkpoint, so they are looked at again.
        self._lately: set[str] = set()
        self._token = 0
        #: Bytes of a document, about.
        self._weight = 1

    async def open(self, until: Position, token: int) -> None:
        """Learn which documents are parked, and see that the store has what was retried.

        Args:
            until: the checkpoint; what comes after it, comes again.
            token: of the lease under which this works.
        """
        self._token = token
        self._parked = dict(await self._parking.parked(self._unit))
        await self._correct()
        self._lately = await self._repeat_retries(until)

    async def _repeat_retries(
        self, until: Position, keys: Container[str] | None = None
    ) -> set[str]:
        """See that the store has what was retried; return the documents."""
        seen = set()
        async for key, events in self._retried(until):
            if keys is not None and key not in keys:
                continue
            seen.add(key)
            released = await release(self._folder, self._store, self._unit, key, events)
            if released.failed is not None:
                await self._park_again(key, events, released)
        return seen

    async def _retried(self, until: Position) -> AsyncIterator[tuple[str, list[Waiting]]]:
        """The documents with what was retried of each; no more in memory than one of them and a page."""
        after: tuple[str, Position] | None = None
        events: list[Waiting] = []
        while page := await self._parking.retried(self._unit, until, after):
            for key, event in page:
                if after is not None and key != after[0]:
                    yield after[0], events
                    events = []
                events.append(event)
                after = key, event.record.position
        if after is not None:
            yield after[0], events

    async def check(self, expected: Checkpoint) -> None:
        """See that the store still is where it was left.

        Raises:
            FencedError: it is not.
        """
        number = self._unit.partition
        found = await self._store.checkpoints(self._unit.projection, [number])
        if found.get(number) != expected:
            raise FencedError("the checkpoint in the store is not as it was left")

    async def _correct(self) -> None:
        """Take back what the store says of documents that were freed: it may have come back older."""
        for key, parking in (await self._store.parked(*self._unit)).items():
            hold = self._parked.get(key)
            if hold is None or hold.name != parking:
                await self._store.unpark(*self._unit, key, parking)

    async def _park_again(self, key: str, events: list[Waiting], released: Released) -> None:
        """What could be applied once cannot be applied again: the code has changed."""
        failed = released.failed
        if failed is None:
            return
        rest = [event.record for event in events if event.record.position > failed.record.position]
        steps = [Parked(failed._replace(key=key), released.error, released.base)]
        steps += [Parked(FoldStep(key, record, failed.route, None), None) for record in rest]
        self._parked |= await self._parking.park(self._unit, steps, self._token)

    async def apply(
        self,
        records: list[Record],
        expected: Checkpoint,
        checkpoint: Checkpoint,
        untried: Exception | None = None,
        *,
        survived: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Bring the store from one checkpoint to the next.

        Args:
            records: what lies between them.
            expected: where the store is.
            checkpoint: where it shall be.
            untried: park the records for this reason, without a try.
            survived: awaited when the handlers are through, before anything is written.

        Raises:
            FencedError: the store's checkpoint is another one; nothing was written.
            UnavailableError: a server is away; what was written, if anything, was everything.
        """
        usual = untried is None and survived is None and not self._parked and not self._lately
        if usual and await self._overwrite(records, expected, checkpoint):
            return
        steps = self._route(records, untried)
        while True:
            if self._lately:
                await self.check(expected)  # never on what came back older or empty
                await self._repeat_retries(expected.position, self._lately)
            folded, parked = await self._fold(steps, expected, survived)
            if folded is None:
                steps = self._route(records, untried)  # an operator freed a document meanwhile
                continue
            batch = Batch(*self._unit, expected, checkpoint, folded.writes, parked)
            try:
                outcome = await self._store.apply(batch)
            except UnwritableError as error:
                free, waiting = self._split(steps)
                singled = await single_out(self._folder, self._store, batch, free, error)
                steps = [*singled, *waiting]
                continue
            if outcome is Outcome.APPLIED:
                self._lately.clear()  # to lose those the store has to lose this checkpoint too
                return
            if outcome is Outcome.FENCED:
                raise FencedError("the checkpoint is not as it was left")
            probe("projector.conflict")

    async def _overwrite(
        self, records: list[Record], expected: Checkpoint, checkpoint: Checkpoint
    ) -> bool:
        """Apply records the short way, in one round trip; say whether that could be done."""
        writes = overwritten(self._folder.projection, records)
        if writes is None:
            return False
        probe("projector.folded")
        batch = Batch(*self._unit, expected, checkpoint, writes, overwrites=True)
        try:
            outcome = await self._store.apply(batch)
        except UnwritableError:
            return False
        if outcome is Outcome.FENCED:
            raise FencedError("the checkpoint is not as it was left")
        return outcome is Outcome.APPLIED

    def _route(self, records: list[Record], untried: Exception | None) -> list[FoldStep]:
        folder = self._folder
        if untried is not None:
            found = [folder.untried(record, untried) for record in records]
            return [step for step in found if step is not None]
        if not any(key.startswith(UNROUTED) for key in self._parked):
            return folder.route(records)
        waiting = {record.position: self._waits(record) for record in records}
        steps = folder.route(record for record in records if waiting[record.position] is None)
        return [*steps, *(step for step in waiting.values() if step is not None)]

    def _waits(self, record: Record) -> FoldStep | None:
        step = self._folder.waits(record, self._parked)
        return step if step is not None and self._held(step) else None

    def _held(self, step: FoldStep) -> bool:
        hold = self._parked.get(step.key)
        return hold is not None and step.record.position >= hold.since

    def _split(self, steps: list[FoldStep]) -> tuple[list[FoldStep], list[FoldStep]]:
        """Those which may be applied, and those which wait behind a parked one."""
        if not self._parked:
            return steps, []
        waiting = [step for step in steps if self._held(step)]
        return [step for step in steps if not self._held(step)], waiting

    def limits(self, limits: Limits) -> Limits:
        """Fewer records at once where the documents are large: all that they concern are loaded."""
        return limits._replace(records=max(1, min(limits.records, limits.size // self._weight)))

    def _weigh(self, loaded: list[Stored]) -> None:
        if loaded:
            mean = sum(len(one.document or b"") for one in loaded) // len(loaded)
            # Up at once, down slowly: one batch of small ones does not make the next one small.
            self._weight = max(1, mean, self._weight * 7 // 8)

    async def _fold(
        self,
        steps: list[FoldStep],
        expected: Checkpoint,
        survived: Callable[[], Awaitable[None]] | None,
    ) -> tuple[Folded | None, tuple[tuple[str, str], ...]]:
        free, waiting = self._split(steps)
        keys = list(dict.fromkeys(step.key for step in free))
        loaded = await self._store.load(
            self._unit.projection, keys, documents=self._folder.projection.reads_views
        )
        probe("projector.loaded")
        self._weigh(loaded)
        folded = self._folder.fold(free, dict(zip(keys, loaded, strict=True)))
        if survived is not None:
            await survived()
        if not folded.poisons and not waiting:
            return folded, ()
        if folded.poisons:
            # What was loaded says what they wait for, and that stays: not what came back older or empty.
            await self.check(expected)
        away = await self._park(folded, waiting)
        if away is None:
            return None, ()
        return folded, tuple(sorted((key, hold.name) for key, hold in away.items()))

    async def _park(self, folded: Folded, waiting: list[FoldStep]) -> Mapping[str, Hold] | None:
        """Put away what cannot go on, before the checkpoint moves past it; None if some is free."""
        for poison in folded.poisons:
            log.error(
                "%s is parked at %s: %s",
                name_of(self._unit.projection, poison.step.key),
                poison.step.record.position, poison.error,
            )  # fmt: skip
        away = [Parked(*poison) for poison in folded.poisons]
        away += [Parked(step, None) for step in (*folded.held, *waiting)]
        away.sort(key=lambda parked: parked.step.record.position)
        holds = await self._parking.park(self._unit, away, self._token)
        probe("projector.parked")
        self._parked |= holds
        freed = {parked.step.key for parked in away} - holds.keys()
        for key in freed:
            self._parked.pop(key, None)
        self._lately |= freed
        return None if freed else holds


def name_of(projection: str, key: str) -> str:
    """What to call a parked document."""
    if key.startswith(UNROUTED):
        return f"{projection}: events of key {key.removeprefix(UNROUTED)}, document unknown,"
    return f"{projection}:{key}"
