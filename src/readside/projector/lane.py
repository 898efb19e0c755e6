"""One partition of one projection: reads its records, folds them, writes documents and checkpoint."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from readside.core.backoff import Backoff
from readside.core.chain import Head, Verdict, sift
from readside.core.durability import Durability
from readside.core.errors import FencedError, HistoryLostError, LeaseLostError, ReadsideError
from readside.core.folding import Batch, Folder
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection
from readside.core.record import Checkpoint, Record, Watermark
from readside.core.shipping import Wish
from readside.ports.broker import Subscription
from readside.ports.ledger import Lease, Progress
from readside.ports.probe import probe
from readside.ports.store import Outcome
from readside.projector.claim import MEND, claim
from readside.projector.folds import Folds
from readside.projector.healing import Healing, Step
from readside.projector.surroundings import Surroundings
from readside.projector.trial import Trial

log = logging.getLogger("readside.projector")

#: Seconds to wait for records before looking after other things.
_PATIENCE = 0.5
#: Seconds of idleness after which the store is asked whether the checkpoint is still there.
_LOOK_AFTER = 1.0


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
        self._checkpoint = Checkpoint(BEGINNING, 0, "", lease.token)
        self._durability = Durability(around.settle_delay)
        self._healing = Healing()
        #: The last record of the partition that a watermark has named.
        self._newest = BEGINNING
        self._complaints = around.complaints
        self._patience = Backoff(first=10.0, longest=600.0)
        self._from_first = False
        self._looked_at = 0.0
        self._trial = Trial(lease, around)
        #: Whether the store may still tell readers that this partition is lost.
        self._halted = True
        self.state = "starting"
        self.detail = ""
        self.applied = 0
        self._known = False
        #: Set while this lane listens to the broker, or has tried to.
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled or until the lease turns out to be another's."""
        backoff = Backoff(longest=5.0)
        fenced = Backoff(first=0.01, longest=1.0)
        while True:
            applied = self.applied
            try:
                await self._try()
            except LeaseLostError as error:
                log.info("%s: %s", self._name, error.detail)
                self.state = "released"
                return
            except FencedError as error:
                log.warning("%s: %s", self._name, error.detail)
                if self.applied > applied:
                    fenced.reset()
                await self._clock.sleep(fenced.next(self._clock.chance()))
            except Exception as error:  # noqa: BLE001 - what nobody foresaw must not end it in silence
                if self.applied > applied:
                    backoff.reset()
                pause = backoff.next(self._clock.chance())
                self._complain(error)
                await self._clock.sleep(pause)

    async def _try(self) -> None:
        try:
            await self._session()
        except HistoryLostError as error:
            await self._lose(error)

    @property
    def _name(self) -> str:
        return f"{self.lease.unit.projection} partition {self.lease.unit.partition}"

    def _complain(self, error: Exception) -> None:
        now = self._clock.now()
        if isinstance(error, ReadsideError):
            if self._complaints.worth_saying(str(error), now):
                log.warning("projector tries again and again: %s", error)
            self._say("retrying", error.detail)
            return
        if self._complaints.worth_saying(f"{self._name} {error!r}", now):
            log.error(
                "%s: nobody foresaw this; it is tried again: %r", self._name, error, exc_info=error
            )
        self._say("retrying", repr(error))

    def _say(self, state: str, detail: str = "") -> None:
        self.state, self.detail = state, detail

    async def _lose(self, error: HistoryLostError) -> None:
        if self._complaints.worth_saying(str(error), self._clock.now()):
            log.error("%s: %s", self._name, error)
        self._say("lost", error.detail)
        self._halted = True
        self.subscribed.set()
        try:
            await self._around.store.halt(*self.lease.unit, error.detail)
        except ReadsideError as failure:
            log.warning("%s: %s", self._name, failure)
        # Rarely: to look again may mean to read the broker's whole log.
        again_at = self._clock.now() + self._patience.next(self._clock.chance())
        before = await self._stored()
        while self._clock.now() < again_at and await self._stored() in (None, before):
            await self._clock.sleep(_LOOK_AFTER)
        self._healing = Healing()

    async def _stored(self) -> Checkpoint | None:
        unit = self.lease.unit
        try:
            found = await self._around.store.checkpoints(unit.projection, [unit.partition])
        except ReadsideError:
            return None
        return found.get(unit.partition)

    async def _session(self) -> None:
        await self._claim()
        await self._folds.open(self._checkpoint.position, self.lease.token)
        offset = "" if self._from_first else self._checkpoint.offset
        self._from_first = False
        subscription = await self._around.broker.subscribe(self.lease.unit.partition, offset)
        self.subscribed.set()
        probe("projector.subscribed")
        try:
            if self.state == "retrying":
                await self._step(subscription)  # what failed may fail again
            if self.state not in ("healing", "lost"):
                if self._complaints.clear():
                    log.info("projector goes on")
                self._say("following")
            while True:
                await self._step(subscription)
        finally:
            await subscription.close()

    async def _claim(self) -> None:
        self.lease, self._checkpoint = await claim(self.lease, self._around)
        self._known = True
        self._durability = Durability(self._around.settle_delay)
        self._durability.went_to(self._checkpoint.position, self._clock.now())

    async def _step(self, subscription: Subscription) -> None:
        # Behind a hole most are only dropped.
        limits = self._around.limits if self._healing.active else self._trial.limits()
        records, watermark = await subscription.read(self._folds.limits(limits), _PATIENCE)
        if records:
            self._healing.heard()
            await self._take(records)
        if watermark is not None:
            self._newest = max(self._newest, watermark.last)
            await self._heed(watermark, idle=not records)
        elif not records:
            await self._look()

    async def _take(self, records: list[Record]) -> None:
        applied = Head(self._checkpoint.position, self._checkpoint.nth)
        fresh, stopper, verdict = sift(applied, records)
        for some in [[record] for record in fresh] if self._trial.on else [fresh]:
            if some:
                await self._apply(some)
                await self._be_well()
        if stopper is None:
            if len(fresh) < len(records):
                again = len(records) - len(fresh)
                log.debug("%s: %d records came again, and were passed over", self._name, again)
            return
        if verdict is Verdict.FORK:
            raise HistoryLostError(
                f"record {stopper.nth} at {stopper.position} follows record {self._checkpoint.nth} at"
                f" {self._checkpoint.position}: the database went back in time and took another way",
                mend=MEND,
            )
        reason = f"{stopper.position} follows {stopper.predecessor}"
        await self._heal(reason, records[-1].position)

    async def _apply(self, records: list[Record]) -> None:
        last = records[-1]
        offset = last.offset or self._checkpoint.offset
        checkpoint = Checkpoint(last.reaches, last.nth, offset, self.lease.token)
        if self._trial.on:
            await self._trial.apply(self.lease, self._folds, last, self._checkpoint, checkpoint)
        else:
            await self._folds.apply(records, self._checkpoint, checkpoint)
        self._went_to(checkpoint)
        self.applied += len(records)
        probe("projector.applied")

    async def _be_well(self) -> None:
        """A next record was applied: no hole here, and nothing lost."""
        self._healing.applied()
        if self._halted:
            await self._around.store.halt(*self.lease.unit, "")
            self._halted = False
            self._patience.reset()
        if self.state in ("healing", "lost"):
            log.info("%s: nothing is missing any more", self._name)
        self._say("following")

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
        self._went_to(checkpoint)
        probe("projector.moved_on")
        await self._be_well()

    def _went_to(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        now = self._looked_at = self._clock.now()
        self._durability.seen(now)
        self._durability.went_to(checkpoint.position, now)

    async def _look(self) -> None:
        """While idle, see whether the store still is as it was left."""
        if self._clock.now() - self._looked_at < _LOOK_AFTER:
            return
        self._looked_at = self._clock.now()
        await self._folds.check(self._checkpoint)
        self._durability.seen(self._clock.now())

    async def _heal(self, reason: str, behind: Position | None = None) -> None:
        unit, now = self.lease.unit, self._clock.now()
        healing = self._healing
        unreachable = healing.wants_answer(now) and await self._around.ledger.unreachable(unit)
        step = healing.hole(now, unreachable=unreachable, behind=behind, newest=self._newest)
        self._say("healing", reason)
        if step is Step.ASK:
            if self._complaints.worth_saying(reason, now):
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
                mend=MEND,
            )

    def progress(self, rate: float) -> Progress | None:
        """How far this lane is, as far as the store has confirmed it."""
        if self.state == "released" or (not self._known and self.state != "lost"):
            return None
        position, nth, _, _ = self._checkpoint
        durable = self._durability.position
        return Progress(
            self.lease.unit,
            position,
            None if durable == BEGINNING else durable,
            nth,
            self.state,
            self.detail,
            rate,
            self.lease.token,
        )
