"""The relay: takes events in commit order from the source, and ships them to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from readside.core.backoff import Backoff
from readside.core.complaints import Complaints
from readside.core.errors import ReadsideError, SlotBusyError
from readside.core.heartbeat import Heartbeats
from readside.core.position import BEGINNING, Position, format_lsn
from readside.core.settling import Bookmark
from readside.core.shipping import Shipping
from readside.ports.broker import Broker
from readside.ports.clock import Clock
from readside.ports.ending import end
from readside.ports.ledger import Capture, RelayLedger, Shipped, Survey
from readside.ports.probe import probe
from readside.ports.source import Source
from readside.ports.traits import Promise

log = logging.getLogger("readside.relay")

_STANDBY_PATIENCE = 0.5
_PARTITION = attrgetter("partition")
_NONE: Mapping[int, Position] = {}


@dataclass(frozen=True)
class RelaySettings:
    """How a relay behaves; times in seconds."""

    #: Between two looks at the projectors' progress and wishes.
    survey_every: float = 0.25
    #: Bytes of WAL kept for slow projections before the relay confirms on the broker's word alone.
    retained_wal: int = 4 * 1024**3


class _Rewound(Exception):  # noqa: N818 - a turn in the flow, not an error
    """A projector wants records again: start over from the bookmark."""


class Relay:
    """Ships one app's events. Of several relays, the one that has the source works; the others wait.

    Args:
        before_shipping: awaited when this relay has the source and before it ships; its argument
            says whether the relay has only gone back (True) or may be a new one (False).
        applied: tells the newest position that the read store has, where no broker remembers what
            was shipped.
    """

    def __init__(
        self,
        app: str,
        source: Callable[[int], Source],
        broker: Broker,
        ledger: RelayLedger,
        clock: Clock,
        settings: RelaySettings | None = None,
        *,
        before_shipping: Callable[[bool], Awaitable[None]] | None = None,
        applied: Callable[[], Awaitable[Position]] | None = None,
    ) -> None:
        self._app = app
        self._make_source = source
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._settings = settings or RelaySettings()
        self._before_shipping = before_shipping
        self._applied = applied
        self._rewinding = False
        self._complaints = Complaints()
        #: Set while this relay has the source.
        self.active = asyncio.Event()
        self.state = "starting"
        #: Events shipped by this relay, for those who watch.
        self.shipped = 0

    async def run(self) -> None:
        """Work until cancelled; whatever fails is tried again."""
        backoff = Backoff()
        while True:
            shipped = self.shipped
            try:
                await self._session()
            except _Rewound:
                backoff.reset()
                # Where it was not shipping yet, nobody was made ready for what it will ship.
                self.state = "rewinding" if self.active.is_set() else "starting"
            except SlotBusyError as busy:
                if self.state != "standby":
                    log.info("standby: %s", busy.detail)
                self.state = "standby"
                await self._clock.sleep(_STANDBY_PATIENCE)
            except ReadsideError as error:
                if self.shipped > shipped:
                    backoff.reset()
                pause = backoff.next(self._clock.chance())
                if self._complaints.worth_saying(str(error), self._clock.now()):
                    log.warning("relay tries again and again: %s", error)
                self.state = f"retrying: {error.detail or error}"
                await self._tell()
                await self._clock.sleep(pause)
            finally:
                self.active.clear()

    async def _tell(self) -> None:
        try:
            await self._ledger.tell(self.state)
        except ReadsideError as error:
            log.debug("nobody can be told: %s", error)

    async def _session(self) -> None:
        capture = await self._ledger.capture(self._app)
        source = self._make_source(capture.epoch)
        try:
            await source.start(capture.bookmark.lsn)
            probe("relay.started")
            # Only the one who has the source may trust the notes: read them again. And before anything
            # is written: the log of a restored database grows, and past its old end it tells nothing.
            latest = await self._follow(capture)
            await self._broker.open(self._app, latest.partitions)
            tails = await self._broker.tails()
            if tails:
                latest = await self._follow(capture, tails)
            shipping = await self._prepare(latest, tails)
            if self._before_shipping is not None:
                await self._before_shipping(self.state == "rewinding")
            if self._applied is not None and self.state != "rewinding":
                # A late write may have brought the store further; where the lanes have claimed, they are
                # refused from now on (one that could not yet is not waited for for ever).
                await self._follow(capture, tails)
            log.log(
                logging.INFO if self.state in ("starting", "streaming", "rewinding") else logging.WARNING,
                "relay of app %s streams from %s", self._app, format_lsn(latest.bookmark.lsn),
            )  # fmt: skip
            self.state = "streaming"
            self._complaints.clear()
            self.active.set()
            await self._both(source, shipping)
        finally:
            await source.close()

    async def _follow(self, capture: Capture, tails: Mapping[int, Position] = _NONE) -> Capture:
        """Read the notes again, and start over where the history has restarted.

        Raises:
            _Rewound: it has.
        """
        newest = max(tails.values(), default=BEGINNING)
        if self._applied is not None:
            newest = max(newest, await self._applied())
        latest = await self._ledger.capture(self._app, newest)
        if latest.epoch != capture.epoch:
            raise _Rewound
        return latest

    async def _prepare(self, capture: Capture, tails: Mapping[int, Position]) -> Shipping:
        shipping = Shipping(capture.partitions, capture.origin, capture.bookmark, tails)
        for wish in (await self._ledger.survey()).rewinds:
            reachable = shipping.grant(wish)
            log.warning(
                "%s partition %s: sending again from after %s%s",
                wish.unit.projection, wish.unit.partition, wish.after,
                "" if reachable else " is not possible, the source no longer has it",
            )  # fmt: skip
            await self._ledger.answer(wish, reachable=reachable)
        self._rewinding = False
        return shipping

    async def _both(self, source: Source, shipping: Shipping) -> None:
        shipper = asyncio.ensure_future(self._ship(source, shipping))
        tender = asyncio.ensure_future(self._tend(source, shipping))
        try:
            done, _ = await asyncio.wait({shipper, tender}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end((shipper, tender))

    async def _ship(self, source: Source, shipping: Shipping) -> None:
        heartbeats = Heartbeats(len(shipping.heads))
        while not self._rewinding:
            chunk = await source.read(0.004 if heartbeats.pending else 0.2)
            records = shipping.tell(shipping.take(chunk.events), chunk.settled)
            if records:
                probe("relay.taken")
                await self._broker.publish(records)
                probe("relay.published")
                self.shipped += len(records)
            shipping.shipped(chunk.settled)
            if not chunk.events or chunk.settled > chunk.events[-1].position.lsn:
                shipping.mark()
            for partition in set(map(_PARTITION, records)):
                heartbeats.touched(partition)
            await self._announce(shipping, heartbeats)
        raise _Rewound

    async def _announce(self, shipping: Shipping, heartbeats: Heartbeats) -> None:
        newest = max(head.position.lsn for head in shipping.heads)
        due = heartbeats.due(self._clock.now(), settled=shipping.settled > newest)
        if due:
            await self._broker.announce([shipping.watermark(partition) for partition in due])
            probe("relay.announced")

    async def _tend(self, source: Source, shipping: Shipping) -> None:
        """Confirm what everybody has applied, and listen for wishes."""
        confirmed = shipping.settling.confirmed.lsn
        while True:
            survey = await self._ledger.survey()
            await self._hear(survey, shipping)
            applied = survey.applied
            if applied is not None and applied.epoch != shipping.epoch:
                applied = None
            bookmark = shipping.settling.settle(applied)
            if bookmark is not None:
                self.state = "streaming"
            else:
                bookmark = self._bounded(source, shipping)
            if bookmark is not None:
                if not await self._ledger.confirm(bookmark, survey.resets):
                    raise _Rewound  # a projection has begun again meanwhile: from the old bookmark
                probe("relay.confirmed")
                confirmed = bookmark.lsn
            # Also when nothing is new: the server ends a connection that stays silent.
            await source.settle(confirmed)
            probe("relay.settled")
            await self._ledger.ship(
                Shipped(shipping.settled, shipping.heads, shipping.sample(), self.state)
            )
            await self._clock.sleep(self._settings.survey_every)

    async def _hear(self, survey: Survey, shipping: Shipping) -> None:
        """Go back for wishes that can be granted; say no to the others at once."""
        for wish in survey.rewinds:
            if shipping.reachable(wish):
                self._rewinding = True
            else:
                log.warning(
                    "%s partition %s: what follows %s is gone from PostgreSQL",
                    wish.unit.projection, wish.unit.partition, wish.after,
                )  # fmt: skip
                await self._ledger.answer(wish, reachable=False)

    def _bounded(self, source: Source, shipping: Shipping) -> Bookmark | None:
        kept_from = source.retains(shipping.settling.confirmed.lsn)
        if kept_from is None:
            return None
        retained = shipping.settled - kept_from
        if (
            retained <= self._settings.retained_wal
            or self._broker.traits.remembers is Promise.NEVER
        ):
            return None
        log.error(
            "PostgreSQL retains %s MB of WAL for projections that are behind: confirming %s on the"
            " broker's word alone; what the broker loses now cannot be sent again",
            retained // 1024**2, format_lsn(shipping.settled),
        )  # fmt: skip
        self.state = "streaming, unprotected: retained WAL passed its bound"
        return shipping.settling.force()
