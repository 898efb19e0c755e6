"""What every parking has to pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from readside.core.errors import HandlerError, LeaseLostError
from readside.core.event import Event
from readside.core.folding import Step
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Record
from readside.core.view import View
from readside.ports.ledger import PAGE, PAGE_BYTES, Parked, Parking
from readside.testing.conformance.broker_ground import record
from readside.testing.conformance.store import KEYS

UNIT = Unit("things", 3)


class _Done(Event, key="id", type="thing.done"):
    id: str


class _Thing(View):
    id: str


_THINGS = Projection("things", _Thing)


@_THINGS.on(_Done)
def _done(event: _Done) -> _Thing:
    return _Thing(event.id)


def step(document: str, nth: int, *, poison: bool = False, **fields: Any) -> Parked:
    """A step of a document: the poison itself, or one behind it."""
    made = record(nth, UNIT.partition, **fields)
    error = HandlerError(f"Handler of {document} raised ключ\0.") if poison else None
    return Parked(Step(document, made, _THINGS.routes["thing.done"], None), error)


def at(nth: int) -> Position:
    """The position of a step."""
    return record(nth, UNIT.partition).position


class ParkingContract(ABC):
    """Documents which cannot move on. Each test has an app of its own."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make(self) -> Parking:
        """A parking; each call gives another connection to the same documents."""

    @abstractmethod
    async def waiting(self, unit: Unit, key: str) -> list[Record]:
        """The records that wait for a document, in order, read behind the adapter's back."""

    @abstractmethod
    async def lease(self, unit: Unit) -> int:
        """Let a new owner take the unit; return its token."""

    @abstractmethod
    async def free(self, unit: Unit, key: str) -> None:
        """Let a document move on, as a retry does that has applied all its events."""

    @abstractmethod
    async def applied(self, unit: Unit, key: str, until: Position) -> None:
        """Note that a retry has applied a document's events up to a position."""

    @abstractmethod
    async def discard(self, unit: Unit, key: str, *, whole: bool) -> None:
        """Give up the first event that waits for a document, or all."""

    async def bases(self, parking: Parking, key: str) -> dict[int, str]:
        """What each event of a document waited for, once a retry has applied all and freed it."""
        await self.free(UNIT, key)
        found = await parking.retried(UNIT, at(99))
        return {one.record.nth: one.base for name, one in found if name == key}

    async def done(self, parking: Parking) -> None:  # noqa: B027 - a hook that may stay empty
        """Disconnect."""

    @pytest_asyncio.fixture
    async def parking(self) -> AsyncIterator[Parking]:
        parking = await self.make()
        yield parking
        await self.done(parking)

    async def test_nothing_is_parked_at_first(self, parking: Parking) -> None:
        assert await parking.parked(UNIT) == {}

    async def test_parking_nothing_is_nothing(self, parking: Parking) -> None:
        assert await parking.park(UNIT, []) == {}
        assert await parking.parked(UNIT) == {}

    async def test_a_poison_parks_its_document(self, parking: Parking) -> None:
        holds = await parking.park(UNIT, [step("x", 5, poison=True)])
        assert set(holds) == {"x"}
        assert holds["x"].since == at(5)
        assert set(await parking.parked(UNIT)) == {"x"}
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [5]
        other = await self.make()
        assert set(await other.parked(UNIT)) == {"x"}
        await self.done(other)

    async def test_what_comes_later_waits_behind_it_in_order(self, parking: Parking) -> None:
        await parking.park(UNIT, [step("x", 5, poison=True), step("x", 6), step("x", 8)])
        holds = await parking.parked(UNIT)
        assert await parking.park(UNIT, [step("x", 9), step("x", 11)]) == holds
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [5, 6, 8, 9, 11]

    async def test_a_poison_that_comes_before_the_first_one_moves_the_hold(
        self, parking: Parking
    ) -> None:
        """The store came back empty, and the code takes less than it did."""
        (hold,) = (await parking.park(UNIT, [step("x", 7, poison=True), step("x", 8)])).values()
        holds = await parking.park(UNIT, [step("x", 5, poison=True), step("x", 6)])
        assert holds["x"] == hold._replace(since=at(5))
        assert await parking.parked(UNIT) == holds
        assert await parking.park(UNIT, [step("x", 9, poison=True)]) == holds
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [5, 6, 7, 8, 9]

    async def test_parking_twice_is_parking_once(self, parking: Parking) -> None:
        steps = [step("x", 5, poison=True), step("x", 6), step("y", 6, poison=True)]
        for _ in range(3):
            assert set(await parking.park(UNIT, steps)) == {"x", "y"}
        assert set(await parking.parked(UNIT)) == {"x", "y"}
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [5, 6]
        assert [one.nth for one in await self.waiting(UNIT, "y")] == [6]

    async def test_a_step_of_a_free_document_is_refused(self, parking: Parking) -> None:
        assert await parking.park(UNIT, [step("x", 6)]) == {}
        assert await parking.parked(UNIT) == {}
        assert await self.waiting(UNIT, "x") == []

    async def test_a_freed_document_is_reported_and_the_others_wait(self, parking: Parking) -> None:
        await parking.park(UNIT, [step("x", 5, poison=True), step("y", 5, poison=True)])
        await self.free(UNIT, "x")
        assert set(await parking.parked(UNIT)) == {"y"}
        assert set(await parking.park(UNIT, [step("x", 7), step("y", 7)])) == {"y"}
        assert await self.waiting(UNIT, "x") == []
        assert [one.nth for one in await self.waiting(UNIT, "y")] == [5, 7]

    async def test_a_freed_document_can_be_parked_again(self, parking: Parking) -> None:
        await parking.park(UNIT, [step("x", 5, poison=True)])
        await self.free(UNIT, "x")
        again = [step("x", 7, poison=True), step("x", 8)]
        before = await parking.park(UNIT, again)
        assert before["x"].since == at(7)
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [7, 8]

    async def test_what_a_retry_has_applied_waits_no_more_and_is_remembered(
        self, parking: Parking
    ) -> None:
        steps = [step("y", 4, poison=True), step("x", 5, poison=True), step("x", 6), step("x", 7)]
        await parking.park(UNIT, steps)
        assert await parking.retried(UNIT, at(9)) == []
        await self.applied(UNIT, "x", at(6))
        await self.applied(UNIT, "y", at(6))
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [7]
        found = await parking.retried(UNIT, at(9))
        assert [(key, one.record.nth) for key, one in found] == [("x", 5), ("x", 6), ("y", 4)]
        assert found[0][1].record == steps[1].step.record
        assert [one.record.nth for _, one in await parking.retried(UNIT, at(5))] == [5, 4]
        assert await parking.retried(Unit("things", 2), at(9)) == []

    async def pages(self, parking: Parking, until: Position) -> list[list[tuple[str, int, str]]]:
        """What was retried, page by page, as keys, numbers and what each event waits for."""
        pages: list[list[tuple[str, int, str]]] = []
        after = None
        while page := await parking.retried(UNIT, until, after):
            pages.append([(key, one.record.nth, one.base) for key, one in page])
            after = page[-1][0], page[-1][1].record.position
        return pages

    async def test_what_was_retried_comes_in_pages(self, parking: Parking) -> None:
        """One page ends in the middle of a document, and nothing is left out or comes twice."""
        last = PAGE * 2 + 7
        steps = [step("x", nth, poison=nth == 2) for nth in range(2, last)]
        await parking.park(UNIT, [step("w", 1, poison=True), *steps, step("y", 3, poison=True)])
        for key in ("w", "x", "y"):
            await self.free(UNIT, key)
        pages = await self.pages(parking, at(last - 2))
        assert [len(page) for page in pages] == [PAGE, PAGE, 6]
        found = [one for page in pages for one in page]
        assert [one[:2] for one in found] == [
            ("w", 1), *(("x", nth) for nth in range(2, last - 1)), ("y", 3)
        ]  # fmt: skip
        assert [one[2] for one in found[2:-1]] == [at(nth).encode() for nth in range(2, last - 2)]

    async def test_a_page_of_large_events_has_few(self, parking: Parking) -> None:
        payload = b'"%s"' % (b"x" * (PAGE_BYTES * 2 // 3))
        steps = [step("x", nth, poison=nth == 2, payload=payload) for nth in range(2, 7)]
        await parking.park(UNIT, steps)
        await self.free(UNIT, "x")
        pages = await self.pages(parking, at(9))
        assert [[nth for _, nth, _ in page] for page in pages] == [[2, 3], [4, 5], [6]]

    async def test_each_event_waits_for_what_its_document_must_contain_before(
        self, parking: Parking
    ) -> None:
        poison = step("x", 5, poison=True)._replace(base=at(2).encode())
        await parking.park(UNIT, [poison, step("x", 6)])
        await parking.park(UNIT, [step("x", 8)])
        await self.applied(UNIT, "x", at(9))
        found = await parking.retried(UNIT, at(9))
        assert [one.base for _, one in found] == [at(nth).encode() for nth in (2, 5, 6)]

    async def test_what_comes_behind_discarded_events_waits_for_what_they_waited_for(
        self, parking: Parking
    ) -> None:
        poison = step("x", 5, poison=True)._replace(base=at(2).encode())
        await parking.park(UNIT, [poison, step("x", 6)])
        await self.discard(UNIT, "x", whole=True)
        await parking.park(UNIT, [step("x", 8), step("x", 9)])
        assert await self.bases(parking, "x") == {8: at(2).encode(), 9: at(8).encode()}

    async def test_what_is_left_waits_for_what_the_discarded_event_waited_for(
        self, parking: Parking
    ) -> None:
        poison = step("x", 5, poison=True)._replace(base=at(2).encode())
        await parking.park(UNIT, [poison, step("x", 6), step("x", 8)])
        await self.discard(UNIT, "x", whole=False)
        assert await self.bases(parking, "x") == {6: at(2).encode(), 8: at(6).encode()}

    async def test_a_discarded_event_takes_along_only_what_itself_has_brought(
        self, parking: Parking
    ) -> None:
        """The store came back empty, and the code takes less; 8 still needs the 6 that comes again."""
        later = step("x", 7, poison=True)._replace(base=at(6).encode())
        await parking.park(UNIT, [later])
        await self.discard(UNIT, "x", whole=True)
        await parking.park(UNIT, [step("x", 8)])
        await parking.park(UNIT, [step("x", 5, poison=True)._replace(base=at(2).encode())])
        await self.discard(UNIT, "x", whole=False)
        assert await self.bases(parking, "x") == {8: at(6).encode()}

    async def test_nothing_waits_for_a_discarded_event(self, parking: Parking) -> None:
        """Here what the document had was taken from it, and put away and given up then."""
        await parking.park(UNIT, [step("x", 9, poison=True)._replace(base=at(7).encode())])
        earlier = step("x", 5, poison=True)._replace(base=at(2).encode())
        await parking.park(UNIT, [earlier, step("x", 7)])
        await self.discard(UNIT, "x", whole=False)
        await self.discard(UNIT, "x", whole=False)
        assert await self.bases(parking, "x") == {9: at(2).encode()}

    async def test_what_comes_again_is_told_anew_what_it_waits_for(self, parking: Parking) -> None:
        """The store came back empty, and the events before it are parked and given up this time."""
        await parking.park(UNIT, [step("x", 8, poison=True)._replace(base=at(7).encode())])
        await parking.park(UNIT, [step("x", 5, poison=True)._replace(base=at(2).encode())])
        await self.discard(UNIT, "x", whole=False)
        await parking.park(UNIT, [step("x", 8)])
        assert await self.bases(parking, "x") == {8: at(2).encode()}

    async def test_what_fails_again_after_a_retry_waits_again(self, parking: Parking) -> None:
        await parking.park(UNIT, [step("x", 5, poison=True), step("x", 6)])
        await self.free(UNIT, "x")
        await parking.park(UNIT, [step("x", 5, poison=True), step("x", 6)])
        assert [one.nth for one in await self.waiting(UNIT, "x")] == [5, 6]
        assert await parking.retried(UNIT, at(9)) == []

    async def test_every_parking_has_a_name_of_its_own(self, parking: Parking) -> None:
        names = set()
        for nth in (5, 6, 7):
            names.add((await parking.park(UNIT, [step("x", nth, poison=True)]))["x"].name)
            await self.free(UNIT, "x")
        assert len(names) == 3

    async def test_who_has_lost_the_lease_parks_nothing(self, parking: Parking) -> None:
        old = await self.lease(UNIT)
        assert set(await parking.park(UNIT, [step("x", 5, poison=True)], old)) == {"x"}
        new = await self.lease(UNIT)
        with pytest.raises(LeaseLostError):
            await parking.park(UNIT, [step("y", 5, poison=True)], old)
        assert set(await parking.parked(UNIT)) == {"x"}
        assert set(await parking.park(UNIT, [step("y", 5, poison=True)], new)) == {"y"}

    async def test_units_are_apart(self, parking: Parking) -> None:
        await parking.park(UNIT, [step("x", 5, poison=True)])
        for other in (Unit("things", 2), Unit("others", 3)):
            assert await parking.parked(other) == {}
            assert await parking.park(other, [step("x", 6)]) == {}

    async def test_every_key_is_its_own(self, parking: Parking) -> None:
        await parking.park(UNIT, [step(key, 5, poison=True) for key in KEYS])
        assert set(await parking.parked(UNIT)) == set(KEYS)
        await self.free(UNIT, KEYS[0])
        assert set(await parking.parked(UNIT)) == set(KEYS[1:])

    async def test_the_whole_record_waits(self, parking: Parking) -> None:
        poison = step(
            "x",
            5,
            poison=True,
            id="00000000-0000-4000-8000-000000000001",
            key="elsewhere",
            version=9,
            payload=b'{"x":"%s"}' % ("ключ".encode() * 50_000),
            headers=b'{"traceparent":"00"}',
            position=Position(0xFFFFFFFF, 2**63 - 1, 2**32 - 1),
            predecessor=Position(3, 2**60 + 1, 1),
        )
        broken = step("y", 6, poison=True, payload=b"\xff\x00 not JSON")
        await parking.park(UNIT, [poison, broken])
        assert await self.waiting(UNIT, "x") == [poison.step.record]
        assert await self.waiting(UNIT, "y") == [broken.step.record]

    async def test_many_steps_at_once(self, parking: Parking) -> None:
        steps = [step("x", 1, poison=True), *(step("x", nth) for nth in range(2, 1500))]
        assert set(await parking.park(UNIT, steps)) == {"x"}
        assert [one.nth for one in await self.waiting(UNIT, "x")] == list(range(1, 1500))
