"""What every ledger has to pass, in its part for the relay and in that for the projectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio

from readside.core.chain import Head
from readside.core.errors import SchemaError
from readside.core.lagging import Sample
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position, settled
from readside.core.settling import Bookmark
from readside.ports.ledger import (
    Capture,
    Progress,
    ProjectorLedger,
    RelayLedger,
    Rewind,
    Shipped,
)


class Ledger(RelayLedger, ProjectorLedger, Protocol):
    """Both parts."""


def progress(unit: Unit, position: Position, nth: int = 1) -> Progress:
    """A report of a unit that follows, and whose store forgets nothing of it."""
    return Progress(unit, position, position, nth, "following", "", 1.5)


class LedgerContract(ABC):
    """The notes of one app. Each test has an app of its own, installed and never shipped."""

    pytestmark = pytest.mark.asyncio

    @property
    @abstractmethod
    def app(self) -> str:
        """The app that is installed."""

    @abstractmethod
    async def make(self) -> Ledger:
        """A ledger; each call gives another connection to the same notes."""

    @abstractmethod
    async def pass_time(self) -> None:
        """Let the database's log grow."""

    @abstractmethod
    async def lose_slot(self) -> None:
        """Drop the app's slot behind the ledger's back."""

    async def done(self, ledger: Ledger) -> None:  # noqa: B027 - a hook that may stay empty
        """Disconnect a ledger."""

    @pytest_asyncio.fixture
    async def ledger(self) -> AsyncIterator[Ledger]:
        ledger = await self.make()
        yield ledger
        await self.done(ledger)

    async def test_a_new_capture_is_complete_and_stays(self, ledger: Ledger) -> None:
        capture = await ledger.capture(self.app)
        assert capture.complete
        assert capture.epoch > 0
        assert capture.origin == settled(capture.epoch, capture.bookmark.lsn)
        assert capture.bookmark.heads == (Head(capture.origin, 0),) * capture.partitions
        assert await ledger.capture(self.app) == capture
        assert await ledger.register(self.app, ["a"]) == capture
        other = await self.make()
        assert await other.capture(self.app) == capture
        await self.done(other)

    async def test_an_app_that_was_not_installed_is_said(self, ledger: Ledger) -> None:
        with pytest.raises(SchemaError):
            await ledger.capture(f"{self.app}x")
        with pytest.raises(SchemaError):
            await ledger.register(f"{self.app}x", [])

    async def test_a_relay_goes_on_at_the_confirmed_bookmark(self, ledger: Ledger) -> None:
        capture = await ledger.capture(self.app)
        await self.pass_time()
        lsn = await ledger.flushed()
        assert lsn > capture.bookmark.lsn
        heads = tuple(
            Head(Position(capture.epoch, lsn - n, n), n) for n in range(1, capture.partitions + 1)
        )
        await ledger.confirm(Bookmark(lsn, heads), 0)
        after = await ledger.capture(self.app)
        assert after == capture._replace(bookmark=Bookmark(lsn, heads))

    async def test_shipping_is_noted_and_changes_nothing(self, ledger: Ledger) -> None:
        capture = await ledger.capture(self.app)
        await self.pass_time()
        shipped = Shipped(
            await ledger.flushed(), capture.bookmark.heads, {0: [Sample(3, 12345)]}, "streaming"
        )
        await ledger.ship(shipped)
        await ledger.ship(shipped._replace(samples={}))
        assert await ledger.capture(self.app) == capture

    async def test_a_late_relay_takes_nothing_back(self, ledger: Ledger) -> None:
        capture = await ledger.capture(self.app)
        await self.pass_time()
        lsn = await ledger.flushed()
        heads = (Head(Position(capture.epoch, lsn - 1, 1), 5),) * capture.partitions
        await ledger.confirm(Bookmark(lsn, heads), 0)
        await ledger.confirm(capture.bookmark, 0)
        assert (await ledger.capture(self.app)).bookmark == Bookmark(lsn, heads)

    async def test_nothing_chosen_before_a_projection_began_again_is_confirmed(
        self, ledger: Ledger
    ) -> None:
        capture = await ledger.capture(self.app)
        await self.pass_time()
        later = Bookmark(await ledger.flushed(), capture.bookmark.heads)
        survey = await ledger.survey()
        assert await ledger.begun_again() == capture
        assert not await ledger.confirm(later, survey.resets)
        assert await ledger.history() == capture
        assert await ledger.confirm(later, (await ledger.survey()).resets)
        assert await ledger.history() == capture._replace(bookmark=later)

    async def test_a_relay_of_an_older_history_changes_nothing(self, ledger: Ledger) -> None:
        before = await ledger.capture(self.app)
        await self.pass_time()
        await self.lose_slot()
        after = await ledger.capture(self.app)
        await self.pass_time()
        lsn = await ledger.flushed()
        await ledger.confirm(Bookmark(lsn, before.bookmark.heads), 0)
        await ledger.ship(Shipped(2**62, before.bookmark.heads, {}, "streaming"))
        assert await ledger.capture(self.app) == after

    async def test_flushed_grows_with_the_log(self, ledger: Ledger) -> None:
        before = await ledger.flushed()
        await self.pass_time()
        assert await ledger.flushed() > before

    # A history that has restarted.

    async def test_a_lost_slot_restarts_the_history(self, ledger: Ledger) -> None:
        before = await ledger.capture(self.app)
        await self.pass_time()
        await self.lose_slot()
        await self._restarted(ledger, before, await ledger.capture(self.app))

    async def test_a_broker_that_is_ahead_restarts_the_history(self, ledger: Ledger) -> None:
        before = await ledger.capture(self.app)
        ahead = Position(before.epoch, await ledger.flushed() + 2**30, 1)
        await self._restarted(ledger, before, await ledger.capture(self.app, ahead))

    async def test_a_broker_of_a_later_history_restarts_it(self, ledger: Ledger) -> None:
        before = await ledger.capture(self.app)
        later = Position(before.epoch + 1_000_000, 16, 1)
        after = await ledger.capture(self.app, later)
        await self._restarted(ledger, before, after)
        assert after.epoch > later.epoch

    async def test_notes_that_are_ahead_of_the_log_restart_the_history(
        self, ledger: Ledger
    ) -> None:
        before = await ledger.capture(self.app)
        ahead = await ledger.flushed() + 2**30
        await ledger.ship(Shipped(ahead, before.bookmark.heads, {}, "streaming"))
        await self._restarted(ledger, before, await ledger.capture(self.app))

    async def test_a_broker_that_is_behind_restarts_nothing(self, ledger: Ledger) -> None:
        before = await ledger.capture(self.app)
        await self.pass_time()
        for newest in (BEGINNING, Position(before.epoch - 1, 2**62, 1), before.origin):
            assert await ledger.capture(self.app, newest) == before

    async def _restarted(self, ledger: Ledger, before: Capture, after: Capture) -> None:
        assert after.epoch > before.epoch
        assert not after.complete
        assert after.origin == settled(after.epoch, after.bookmark.lsn)
        assert after.bookmark.lsn >= before.bookmark.lsn
        assert after.bookmark.heads == (Head(after.origin, 0),) * after.partitions
        assert after.partitions == before.partitions
        assert await ledger.capture(self.app) == after
        assert await ledger.register(self.app, []) == after

    # Progress.

    async def test_without_projections_nothing_is_applied(self, ledger: Ledger) -> None:
        survey = await ledger.survey()
        assert survey.applied is None
        assert survey.rewinds == ()

    async def test_what_is_not_durable_does_not_count(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a"])
        units = [Unit("a", number) for number in range(capture.partitions)]
        low, high = Position(capture.epoch, 100, 1), Position(capture.epoch, 200, 1)

        async def tell(position: Position, durable: Position | None, token: int = 1) -> None:
            reports = [progress(unit, position) for unit in units]
            await ledger.report([one._replace(durable=durable, token=token) for one in reports])

        await tell(high, None)
        assert (await ledger.survey()).applied is None
        await tell(high, low)
        assert (await ledger.survey()).applied == low
        await tell(high, None, token=2)  # a new owner does not know yet what the old one knew
        assert (await ledger.survey()).applied == low
        await tell(high, high, token=1)  # the old one wakes up
        assert (await ledger.survey()).applied == low
        await tell(high, high, token=2)
        assert (await ledger.survey()).applied == high
        await tell(low, None, token=3)  # the store went back
        assert (await ledger.survey()).applied == low

    async def test_who_reports_late_is_told(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a"])
        here = progress(Unit("a", 0), Position(capture.epoch, 100, 1))
        other = here._replace(unit=Unit("a", 1), token=1)
        assert await ledger.report([here._replace(token=2)])
        assert not await ledger.report([here._replace(token=1), other])
        assert await ledger.report([here._replace(token=2), other])

    async def test_what_is_lost_keeps_nothing_back(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a", "b"])
        low, high = Position(capture.epoch, 100, 1), Position(capture.epoch, 200, 1)
        for number in range(capture.partitions):
            await ledger.report([progress(Unit("a", number), high)])
            await ledger.report([progress(Unit("b", number), low)._replace(state="lost")])
        assert (await ledger.survey()).applied == high

    async def test_applied_is_the_lowest_of_all_units(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a", "b"])
        units = [Unit(name, n) for name in "ab" for n in range(capture.partitions)]
        for nth, unit in enumerate(units, 1):
            assert (await ledger.survey()).applied is None
            await ledger.report([progress(unit, Position(capture.epoch, 100 * nth, 1))])
        assert (await ledger.survey()).applied == Position(capture.epoch, 100, 1)
        await ledger.report(
            [progress(unit, Position(capture.epoch, 2**62, 2**31)) for unit in units[:-1]]
        )
        lowest = Position(capture.epoch, 100 * len(units), 1)
        assert (await ledger.survey()).applied == lowest

    async def test_a_report_may_go_back(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a"])
        units = [Unit("a", n) for n in range(capture.partitions)]
        await ledger.report([progress(unit, Position(capture.epoch, 500, 1)) for unit in units])
        await ledger.report([progress(units[0], Position(capture.epoch, 200, 0))])
        assert (await ledger.survey()).applied == Position(capture.epoch, 200, 0)

    async def test_positions_are_compared_as_positions(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a"])
        for low, high in (
            (Position(9, 2**60, 1), Position(10, 1, 1)),
            (Position(1, 0xFF, 1), Position(1, 0x100, 1)),
            (Position(1, 2**53, 1), Position(1, 2**53 + 1, 0)),
            (Position(1, 16, 9), Position(1, 16, 10)),
        ):
            reports = [progress(Unit("a", n), high) for n in range(capture.partitions)]
            reports[0] = progress(Unit("a", 0), low)
            await ledger.report(reports)
            assert (await ledger.survey()).applied == low

    async def test_a_projection_that_never_started_holds_everything(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a"])
        units = [Unit("a", n) for n in range(capture.partitions)]
        await ledger.report([progress(unit, Position(capture.epoch, 500, 1)) for unit in units])
        assert (await ledger.survey()).applied is not None
        await ledger.register(self.app, ["a", "new"])
        assert (await ledger.survey()).applied is None

    async def test_registering_again_changes_nothing(self, ledger: Ledger) -> None:
        capture = await ledger.register(self.app, ["a"])
        await ledger.report(
            [progress(Unit("a", n), Position(1, 500, 1)) for n in range(capture.partitions)]
        )
        await ledger.register(self.app, ["a"])
        await ledger.register(self.app, [])
        assert (await ledger.survey()).applied == Position(1, 500, 1)

    async def test_reporting_nothing_is_nothing(self, ledger: Ledger) -> None:
        assert await ledger.report([])
        assert (await ledger.survey()).applied is None

    # Wishes.

    async def test_a_wish_is_seen_until_it_is_answered(self, ledger: Ledger) -> None:
        await ledger.register(self.app, ["a"])
        wish = Rewind(Unit("a", 1), Position(1, 2**60 + 1, 3))
        await ledger.wish(wish)
        assert (await ledger.survey()).rewinds == (wish,)
        assert not await ledger.unreachable(wish.unit)
        await ledger.answer(wish, reachable=True)
        assert (await ledger.survey()).rewinds == ()
        assert not await ledger.unreachable(wish.unit)

    async def test_an_impossible_wish_is_said_to_be(self, ledger: Ledger) -> None:
        await ledger.register(self.app, ["a"])
        wish = Rewind(Unit("a", 1), Position(1, 16, 0))
        await ledger.wish(wish)
        await ledger.answer(wish, reachable=False)
        assert (await ledger.survey()).rewinds == ()
        assert await ledger.unreachable(wish.unit)
        assert not await ledger.unreachable(Unit("a", 0))
        await ledger.wish(wish)
        assert not await ledger.unreachable(wish.unit)
        assert (await ledger.survey()).rewinds == (wish,)

    async def test_the_newest_wish_of_a_unit_counts(self, ledger: Ledger) -> None:
        await ledger.register(self.app, ["a"])
        old, new = (Rewind(Unit("a", 1), Position(1, lsn, 0)) for lsn in (64, 16))
        await ledger.wish(old)
        await ledger.wish(new)
        assert (await ledger.survey()).rewinds == (new,)
        await ledger.answer(old, reachable=False)
        assert (await ledger.survey()).rewinds == (new,)
        assert not await ledger.unreachable(new.unit)

    async def test_wishes_of_several_units_are_apart(self, ledger: Ledger) -> None:
        await ledger.register(self.app, ["a", "b"])
        wishes = [
            Rewind(unit, Position(1, 16, 0)) for unit in (Unit("a", 0), Unit("a", 1), Unit("b", 1))
        ]
        for wish in wishes:
            await ledger.wish(wish)
        await ledger.answer(wishes[1], reachable=False)
        assert set((await ledger.survey()).rewinds) == {wishes[0], wishes[2]}
        assert [await ledger.unreachable(wish.unit) for wish in wishes] == [False, True, False]
