"""One partition of one projection: reads its records, folds them, writes documents and checkpoint."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass
from typing import Any

from readside.core.backoff import Backoff
from readside.core.batching import Limits
from readside.core.chain import Verdict, judge
from readside.core.complaints import Complaints
from readside.core.errors import FencedError, HistoryLostError, LeaseLostError, ReadsideError
from readside.core.folding import Batch, Folder
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint, Record, Watermark
from readside.core.shipping import Wish
from readside.ports.broker import Broker, Subscription
from readside.ports.clock import Clock
from readside.ports.ledger import Capture, Lease, Leases, Parking, Progress, ProjectorLedger
from readside.ports.probe import probe
from readside.ports.store import Outcome, Store
from readside.projector.folds import Folds
from readside.projector.healing import Healing, Step

log = logging.getLogger("readside.projector")

_LIMITS = Limits()
_MEND = "readside reset module:app projection, where the log or a backup of it reaches back"
#: Seconds to wait for records before looking after other things.
_PATIENCE = 0.5
#: Seconds of idleness after which the store is asked whether the checkpoint is still there.
_LOOK_AFTER = 2.0


@dataclass(frozen=True)
class Surroundings:
    """What every lane of a projector works with."""

    capture: Capture
    broker: Broker
    store: Store
    ledger: ProjectorLedger
    parking: Parking
    leases: Leases
    worker: str
    clock: Clock
    limits: Limits = _LIMITS


class Lane:
    """Works on one unit while its lease is held.

    The order of a step is its guarantee: what has to wait is parked durably, then documents and
    checkpoint are written together, then the progress is reported. A death anywhere between
    repeats the step, and what was done already is recognised by positions.
    """

    def __init__(self, lease: Lease, projection: Projection[Any], around: Surroundings) -> None:
        self.lease = lease
        self._around = around
        self._clock = around.clock
        self._folds = Folds(lease.unit, Folder(projection), around.store, around.parking)
        self._checkpoint = Checkpoint(around.capture.origin, 0, "", lease.token)
        self._healing = Healing()
        self._complaints = Complaints()
        self._from_first = False
        self._looked_at = 0.0
        self.state = "starting"
        self.detail = ""
        self.applied = 0
        self._known = False
        #: Set while this lane listens to the broker, or has tried to.
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled or until the lease turns out to be another's."""
        backoff = Backoff(longest=5.0)
        while True:
            applied = self.applied
            try:
                await self._session()
            except LeaseLostError as error:
                log.info("%s: %s", self._name, error.detail)
                self.state = "released"
                return
            except FencedError as error:
                log.warning("%s: %s", self._name, error.detail)
            except HistoryLostError as error:
                await self._lose(error)
            except ReadsideError as error:
                if self.applied > applied:
                    backoff.reset()
                pause = backoff.next(self._clock.chance())
                if self._complaints.worth_saying(str(error), self._clock.now()):
                    log.warning("%s tries again and again: %s", self._name, error)
                self._say("retrying", error.detail)
                await self._clock.sleep(pause)

    @property
    def _name(self) -> str:
        return f"{self.lease.unit.projection} partition {self.lease.unit.partition}"

    def _say(self, state: str, detail: str = "") -> None:
        self.state, self.detail = state, detail

    async def _lose(self, error: HistoryLostError) -> None:
        log.error("%s: %s", self._name, error)
        self._say("lost", error.detail)
        try:
            await self._around.store.halt(self.lease.unit.projection, error.detail)
        except ReadsideError as failure:
            log.warning("%s: %s", self._name, failure)
        await self._clock.sleep(10.0)
        self._healing = Healing()

    async def _session(self) -> None:
        await self._claim()
        await self._folds.open()
        offset = "" if self._from_first else self._checkpoint.offset
        self._from_first = False
        subscription = await self._around.broker.subscribe(self.lease.unit.partition, offset)
        self.subscribed.set()
        probe("projector.subscribed")
        try:
            if self.state != "healing":
                self._say("following")
            while True:
                await self._step(subscription)
        finally:
            await subscription.close()

    async def _claim(self) -> None:
        """Begin at the store's checkpoint, and put our token there: older owners are fenced off."""
        unit, store = self.lease.unit, self._around.store
        found = (await store.checkpoints(unit.projection, [unit.partition])).get(unit.partition)
        await self._outbid(found)
        await self._check(found)
        start = found or Checkpoint(self._around.capture.origin, 0, "", 0)
        self._checkpoint = start._replace(token=self.lease.token)
        if found == self._checkpoint:
            return
        claim = Batch(unit.projection, unit.partition, found, self._checkpoint, ())
        if await store.apply(claim) is not Outcome.APPLIED:
            raise FencedError("the checkpoint changed while it was claimed")
        probe("projector.claimed")

    async def _outbid(self, found: Checkpoint | None) -> None:
        if found is None or found.token <= self.lease.token:
            return
        around = self._around
        newer = await around.leases.outbid(around.worker, self.lease, found.token)
        if newer is None:
            raise LeaseLostError(f"a worker with token {found.token} has it")
        self.lease = newer

    async def _check(self, found: Checkpoint | None) -> None:
        """Make sure that the store's state belongs to the history that is shipped."""
        capture = self._around.capture
        if found is None:
            if not capture.complete:
                raise HistoryLostError(
                    "nothing is in the read store, and the history before its last restart is gone",
                    mend=_MEND,
                )
        elif found.position.epoch > capture.epoch or (
            found.position.epoch == capture.epoch
            and found.position.lsn > await self._around.ledger.flushed()
        ):
            raise HistoryLostError(
                f"the read store is at {found.position}, after the end of the database's log:"
                " the database went back in time",
                mend=_MEND,
            )

    async def _step(self, subscription: Subscription) -> None:
        records, watermark = await subscription.read(self._around.limits, _PATIENCE)
        if records:
            fresh, hole = self._sift(records)
            if fresh:
                await self._apply(fresh)
                self._healing.applied()
                self._say("following")
            if hole is not None:
                await self._heal(f"{hole.position} follows {hole.predecessor}")
        if watermark is not None:
            await self._heed(watermark, idle=not records)
        elif not records:
            await self._look()

    def _sift(self, records: list[Record]) -> tuple[list[Record], Record | None]:
        """Take what is next, drop duplicates, stop at a hole."""
        applied = self._checkpoint.position
        if records[0].predecessor <= applied < records[0].position and all(
            left.position == right.predecessor for left, right in itertools.pairwise(records)
        ):
            return records, None  # by far the most frequent: a whole batch in its order
        fresh: list[Record] = []
        for record in records:
            verdict = judge(applied, record.predecessor, record.position)
            if verdict is Verdict.NEXT:
                fresh.append(record)
                applied = record.position
            elif verdict is Verdict.HOLE:
                return fresh, record
        return fresh, None

    async def _apply(self, records: list[Record]) -> None:
        last = records[-1]
        offset = last.offset or self._checkpoint.offset
        checkpoint = Checkpoint(last.position, last.nth, offset, self.lease.token)
        await self._folds.apply(records, self._checkpoint, checkpoint)
        self._checkpoint = checkpoint
        self._known = True
        self.applied += len(records)
        probe("projector.applied")

    async def _heed(self, watermark: Watermark, *, idle: bool) -> None:
        position = self._checkpoint.position
        if watermark.last <= position:
            self._healing.tail_complete()
            if watermark.position > position:
                await self._move_on(watermark.position)
            elif idle:
                await self._look()
        elif idle and self._healing.tail_missing(self._clock.now()):
            await self._heal(f"{watermark.last} has not come")

    async def _move_on(self, position: Position) -> None:
        """Pass a quiet stretch of the history: no records there, but readers may wait for it."""
        unit = self.lease.unit
        checkpoint = self._checkpoint._replace(position=position)
        batch = Batch(unit.projection, unit.partition, self._checkpoint, checkpoint, ())
        if await self._around.store.apply(batch) is not Outcome.APPLIED:
            raise FencedError("the checkpoint is not as it was left")
        self._checkpoint = checkpoint
        self._known = True
        self._looked_at = self._clock.now()
        probe("projector.moved_on")

    async def _look(self) -> None:
        """While idle, see whether the store still is as it was left."""
        if self._clock.now() - self._looked_at < _LOOK_AFTER:
            return
        self._looked_at = self._clock.now()
        unit = self.lease.unit
        found = await self._around.store.checkpoints(unit.projection, [unit.partition])
        if found.get(unit.partition) != self._checkpoint:
            raise FencedError("the checkpoint in the store is not as it was left")
        self._known = True

    async def _heal(self, reason: str) -> None:
        unit, now = self.lease.unit, self._clock.now()
        unreachable = self._healing.active and await self._around.ledger.unreachable(unit)
        step = self._healing.hole(now, unreachable=unreachable)
        self._say("healing", reason)
        if step is Step.ASK:
            log.warning("%s: a hole, %s; asking for it again", self._name, reason)
            await self._around.ledger.wish(Wish(unit, self._checkpoint.position))
            probe("projector.asked")
        elif step is Step.RESCAN:
            self._from_first = True
            raise FencedError(
                "PostgreSQL has it no more; reading the broker's log from its beginning"
            )
        elif step is Step.LOST:
            raise HistoryLostError(
                f"{reason}, and neither PostgreSQL nor the broker has what is between",
                mend=_MEND,
            )

    def progress(self, rate: float) -> Progress | None:
        """How far this lane is, as far as the store has confirmed it."""
        if not self._known and self.state != "lost":
            return None
        position, nth, _, _ = self._checkpoint
        return Progress(self.lease.unit, position, nth, self.state, self.detail, rate)
