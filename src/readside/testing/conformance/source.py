"""What every source has to pass."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import ClassVar, NamedTuple

import pytest
import pytest_asyncio

from readside.core.errors import SlotBusyError, SlotLostError
from readside.core.record import Captured
from readside.ports.source import Chunk, Source, SourceTraits
from readside.ports.traits import Promise
from readside.testing.conformance.broker_ground import PATIENCE
from readside.testing.conformance.store import KEYS

EPOCH = 7


class Row(NamedTuple):
    """An event as a user's transaction records it."""

    key: str
    payload: bytes = b"{}"
    type: str = "thing.done"
    version: int = 1
    headers: bytes = b""


def rows(first: int, last: int) -> list[Row]:
    """Numbered events of a few keys."""
    return [Row(f"key-{n % 3}", f'{{"n":{n}}}'.encode()) for n in range(first, last + 1)]


def told(events: list[Captured]) -> list[Row]:
    """What the users had recorded."""
    return [Row(e.key, e.payload, e.type, e.version, e.headers) for e in events]


class SourceContract(ABC):
    """The committed events of one app. Each test has a log of its own, read from its beginning."""

    traits: ClassVar[SourceTraits]
    #: Events of a transaction that is too large for one chunk.
    large: ClassVar[int] = 9000
    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make(self) -> Source:
        """A source of epoch EPOCH that is not started; each call gives another connection."""

    @abstractmethod
    async def beginning(self) -> int:
        """The LSN where the log of this test begins."""

    @abstractmethod
    async def commit(self, *some: Row) -> None:
        """Record the rows in one transaction, as a user does."""

    @abstractmethod
    async def roll_back(self, *some: Row) -> None:
        """Record the rows in a transaction, and let it fail."""

    @abstractmethod
    async def interleave(self, first: Row, second: Row) -> None:
        """Record `first`, then in another transaction `second`; commit `second`, then `first`."""

    @abstractmethod
    async def pass_time(self) -> None:
        """Let the server's log grow without an event of this app."""

    @abstractmethod
    async def confirmed(self) -> int:
        """The LSN before which the server forgets, asked with the vendor's own client."""

    @abstractmethod
    async def lose(self) -> None:
        """Drop the slot. Nobody reads it."""

    @pytest_asyncio.fixture
    async def source(self) -> AsyncIterator[Source]:
        source = await self.make()
        await source.start(await self.beginning())
        yield source
        await source.close()

    async def test_it_says_what_it_promises(self, source: Source) -> None:
        assert source.traits == self.traits
        assert all(isinstance(answer, Promise) for answer in self.traits)

    async def test_what_was_committed_comes_in_order(self, source: Source) -> None:
        await self.commit(*rows(1, 3))
        events = (await take(source, 3)).events
        await self.commit(*rows(4, 4))
        events += (await take(source, 1)).events
        assert told(events) == rows(1, 4)
        assert [event.position.epoch for event in events] == [EPOCH] * 4
        assert [event.position.ordinal for event in events] == [1, 2, 3, 1]
        assert events[0].position.lsn == events[2].position.lsn < events[3].position.lsn
        assert len({event.id for event in events}) == 4
        assert all(event.recorded_at >= 0 for event in events)

    async def test_every_field_travels(self, source: Source) -> None:
        some = [
            Row(key, f'{{ "x" : "{n} ключ \U0001f511" }}'.encode(), "a.b-c_d.2", n + 1, headers)
            for n, key in enumerate(KEYS)
            for headers in (b"", b'{"traceparent":"00-ab-cd-01"}')
        ]
        await self.commit(*some)
        assert told((await take(source, len(some))).events) == some

    async def test_big_payloads_pass(self, source: Source) -> None:
        some = [Row("k", b'{"x":"%s"}' % (letter * 900_000)) for letter in (b"a", b"b", b"c")]
        await self.commit(*some)
        assert told((await take(source, 3)).events) == some

    async def test_what_was_rolled_back_never_comes(self, source: Source) -> None:
        await self.roll_back(*rows(1, 3))
        await self.commit(*rows(4, 4))
        await self.roll_back(*rows(5, 5))
        await self.commit(*rows(6, 6))
        assert told((await take(source, 2)).events) == [*rows(4, 4), *rows(6, 6)]

    async def test_the_order_is_that_of_the_commits(self, source: Source) -> None:
        if self.traits.keeps_commit_order is not Promise.KEPT:
            pytest.skip("this source does not see the order of the commits")
        first, second = rows(1, 2)
        await self.interleave(first, second)
        events = (await take(source, 2)).events
        assert told(events) == [second, first]
        assert events[0].position < events[1].position

    async def test_what_is_read_together_is_in_the_order_of_writing(self, source: Source) -> None:
        if self.traits.keeps_commit_order is not Promise.NEVER:
            pytest.skip("this source sees the order of the commits")
        first, second = rows(1, 2)
        await self.interleave(first, second)
        events = (await take(source, 2)).events
        assert told(events) == [first, second]
        assert events[0].position < events[1].position

    async def test_reading_waits_no_longer_than_it_was_told(self, source: Source) -> None:
        async with asyncio.timeout(PATIENCE):
            assert (await source.read(0)).events == []
            assert (await source.read(0.05)).events == []

    async def test_whoever_waits_is_woken(self, source: Source) -> None:
        async with asyncio.timeout(PATIENCE):
            reading = asyncio.ensure_future(_until_some(source))
            await self.commit(*rows(1, 1))
            assert told(await reading) == rows(1, 1)

    async def test_settled_is_past_what_was_told(self, source: Source) -> None:
        await self.commit(*rows(1, 2))
        chunk = await take(source, 2)
        lsn = chunk.events[-1].position.lsn
        await settled_past(source, lsn)
        await self.commit(*rows(3, 3))
        later = await take(source, 1)
        assert later.events[0].position.lsn > lsn

    async def test_settled_moves_on_while_nothing_is_recorded(self, source: Source) -> None:
        await self.commit(*rows(1, 1))
        await take(source, 1)
        before = (await source.read(0)).settled
        async with asyncio.timeout(PATIENCE):
            while (await source.read(0.2)).settled <= before:
                await self.pass_time()

    async def test_settled_never_runs_ahead(self, source: Source) -> None:
        """Whatever comes after a chunk committed at its `settled` or later."""
        settled = await self.beginning()
        for number in range(1, 30):
            await self.commit(*rows(number, number))
            await self.pass_time()
            chunk = await take(source, 1)
            assert chunk.events[0].position.lsn >= settled
            assert chunk.settled >= settled
            settled = chunk.settled

    async def test_a_large_transaction_comes_in_chunks(self, source: Source) -> None:
        async def record() -> None:
            await self.commit(*rows(1, self.large))
            await self.commit(*rows(self.large + 1, self.large + 1))

        # While it is read: a server may give up a source that says nothing for long.
        recording = asyncio.ensure_future(record())
        found: list[Captured] = []
        chunks = 0
        async with asyncio.timeout(None) as patience:
            while len(found) <= self.large:
                chunk = await source.read(0.5)
                found += chunk.events
                chunks += bool(chunk.events)
                if len(found) < self.large:
                    assert chunk.settled <= (found[0].position.lsn if found else chunk.settled)
                if recording.done() and patience.when() is None:
                    patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        await recording
        assert chunks > 1
        assert told(found) == rows(1, self.large + 1)
        assert all(left.position < right.position for left, right in pairwise(found))

    async def test_what_was_not_settled_comes_again_the_same(self, source: Source) -> None:
        await self.commit(*rows(1, 3))
        await self.commit(*rows(4, 5))
        first = (await take(source, 5)).events
        await source.close()
        await self.commit(*rows(6, 6))
        again = await self._restarted(await self.beginning())
        events = (await take(again, 6)).events
        assert events[:5] == first
        assert told(events[5:]) == rows(6, 6)
        await again.close()

    async def test_a_source_can_start_again(self, source: Source) -> None:
        await self.commit(*rows(1, 2))
        first = (await take(source, 2)).events
        await source.close()
        await _patiently(source, await self.beginning())
        assert (await take(source, 2)).events == first

    async def test_starting_later_skips_what_committed_before(self, source: Source) -> None:
        events: list[Captured] = []
        for number in range(1, 5):
            await self.commit(*rows(number, number))
            events += (await take(source, 1)).events
        await source.close()
        again = await self._restarted(events[2].position.lsn)
        assert (await take(again, 2)).events == events[2:]
        await again.close()

    async def test_what_was_settled_never_comes_again(self, source: Source) -> None:
        await self.commit(*rows(1, 2))
        chunk = await take(source, 2)
        settled = await settled_past(source, chunk.events[-1].position.lsn)
        await self.commit(*rows(3, 4))
        await source.settle(settled)
        async with asyncio.timeout(PATIENCE):
            while await self.confirmed() < settled:
                await source.read(0.05)
                await source.settle(settled)
        await source.close()
        again = await self._restarted(await self.beginning())
        assert told((await take(again, 2)).events) == rows(3, 4)
        await again.close()

    async def test_settling_less_takes_nothing_back(self, source: Source) -> None:
        await self.commit(*rows(1, 1))
        chunk = await take(source, 1)
        settled = await settled_past(source, chunk.events[-1].position.lsn)
        async with asyncio.timeout(PATIENCE):
            while await self.confirmed() < settled:
                await source.settle(settled)
                await source.read(0.05)
        await source.settle(await self.beginning())
        await self.commit(*rows(2, 2))
        await take(source, 1)
        assert await self.confirmed() >= settled

    async def test_nothing_is_forgotten_unasked(self, source: Source) -> None:
        beginning = await self.confirmed()
        await self.commit(*rows(1, 3))
        await take(source, 3)
        await self.pass_time()
        await source.read(0)
        assert await self.confirmed() == beginning

    async def test_a_second_reader_has_to_wait(self, source: Source) -> None:
        await self.commit(*rows(1, 1))
        await take(source, 1)
        other = await self.make()
        with pytest.raises(SlotBusyError):
            await other.start(await self.beginning())
        await self.commit(*rows(2, 2))
        assert told((await take(source, 1)).events) == rows(2, 2)
        await source.close()
        await _patiently(other, await self.beginning())
        assert told((await take(other, 2)).events) == rows(1, 2)
        await other.close()

    async def test_a_lost_slot_is_said(self, source: Source) -> None:
        await source.close()
        await self.lose()
        with pytest.raises(SlotLostError):
            await source.start(await self.beginning())

    async def test_an_interrupted_read_loses_nothing(self, source: Source) -> None:
        for turns in range(12):
            reading = asyncio.ensure_future(source.read(0.5))
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                assert reading.result().events == []
        await self.commit(*rows(1, 3))
        assert told((await take(source, 3)).events) == rows(1, 3)

    async def _restarted(self, lsn: int) -> Source:
        source = await self.make()
        await _patiently(source, lsn)
        return source


async def take(source: Source, count: int) -> Chunk:
    """Read until there are `count` events.

    Raises:
        TimeoutError: they did not come.
    """
    found = Chunk([], 0)
    async with asyncio.timeout(PATIENCE):
        while len(found.events) < count:
            chunk = await source.read(0.5)
            found = Chunk([*found.events, *chunk.events], chunk.settled)
    return found


async def settled_past(source: Source, lsn: int) -> int:
    """Read until everything at `lsn` is settled; return how far it is."""
    async with asyncio.timeout(PATIENCE):
        while (chunk := await source.read(0.1)).settled <= lsn:
            assert chunk.events == []
    return chunk.settled


async def _until_some(source: Source) -> list[Captured]:
    while not (events := (await source.read(PATIENCE)).events):
        pass
    return events


async def _patiently(source: Source, lsn: int) -> None:
    """Start as soon as the server has let go of the reader before."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await source.start(lsn)
            except SlotBusyError:
                await asyncio.sleep(0.01)
