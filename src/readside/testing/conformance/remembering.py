"""What every broker has to pass that keeps a log."""

from __future__ import annotations

import asyncio

import pytest

from readside.core.errors import UnavailableError
from readside.core.record import Record
from readside.ports.broker import Broker
from readside.ports.traits import Promise
from readside.testing.conformance.broker_ground import (
    BRIEFLY,
    LIMITS,
    PATIENCE,
    BrokerGround,
    bare,
    record,
    records,
    take,
)


class Remembering(BrokerGround):
    """What only a log can do."""

    async def test_an_empty_log_has_no_tails(self, broker: Broker) -> None:
        assert dict(await broker.tails()) == {}

    async def test_tails_name_the_last_records(self, broker: Broker) -> None:
        await broker.publish([*records(1, 3, 0), *records(1, 1, 2)])
        expected = {0: record(3).position, 2: record(1).position}
        if self.traits.remembers is Promise.NEVER:
            expected = {}
        assert dict(await broker.tails()) == expected

    async def test_without_an_offset_reading_begins_at_the_first(self, broker: Broker) -> None:
        self._needs_memory()
        await broker.publish(records(1, 20))
        subscription = await broker.subscribe(0, "")
        assert bare(await take(subscription, 20)) == records(1, 20)
        await subscription.close()

    async def test_what_was_published_before_is_gone(self, broker: Broker) -> None:
        if self.traits.remembers is not Promise.NEVER:
            pytest.skip("this broker remembers")
        await broker.publish(records(1, 3))
        subscription = await broker.subscribe(0, "")
        await broker.publish([record(4)])
        assert bare(await take(subscription, 1)) == [record(4)]
        await subscription.close()

    async def test_reading_goes_on_after_an_offset(self, broker: Broker) -> None:
        self._needs_memory()
        await broker.publish([*records(1, 10, 1), *records(1, 10)])
        first = await broker.subscribe(0, "")
        found = await take(first, 10)
        assert len({one.offset for one in found}) == 10 or not self.exact
        await first.close()
        for at in (1, 5, 9):
            later = await broker.subscribe(0, found[at - 1].offset)
            rest = bare(await take(later, 10 - at))
            while rest[-1].nth < 10 and not self.exact:
                rest += bare(await take(later, 1))
            again = [] if self.exact else [one for one in rest if one.nth <= at]
            assert rest == [*again, *records(at + 1, 10)]
            await later.close()
        at_end = await broker.subscribe(0, found[-1].offset)
        assert (await at_end.read(LIMITS, BRIEFLY)).records == []
        await broker.publish([record(11)])
        assert bare(await take(at_end, 1)) == [record(11)]
        await at_end.close()

    async def test_records_outlive_their_publisher(self, app: str) -> None:
        self._needs_memory()
        publisher = await self.make()
        await publisher.open(app, 4)
        await publisher.publish(records(1, 5))
        await publisher.close()
        reader = await self.make()
        await reader.open(app, 4)
        assert dict(await reader.tails()) == {0: record(5).position}
        subscription = await reader.subscribe(0, "")
        assert bare(await take(subscription, 5)) == records(1, 5)
        await subscription.close()
        await reader.close()

    async def test_two_relays_may_publish_the_same(self, broker: Broker, app: str) -> None:
        self._needs_memory()
        other = await self.make()
        await other.open(app, 4)
        for sender in (broker, other, broker, other):
            async with asyncio.timeout(PATIENCE):
                await _insist(sender, records(1, 8))
        subscription = await broker.subscribe(0, "")
        found = bare(await take(subscription, 8))
        assert list(dict.fromkeys(found)) == records(1, 8)[: len(set(found))]
        await subscription.close()
        await other.close()

    async def test_an_offset_of_another_log_means_the_beginning(
        self, broker: Broker, app: str
    ) -> None:
        self._needs_memory()
        await broker.publish(records(1, 5))
        first = await broker.subscribe(0, "")
        offset = (await take(first, 5))[2].offset
        await first.close()
        await self.wipe(app)
        await broker.open(app, 4)
        await broker.publish(records(6, 12))
        later = await broker.subscribe(0, offset)
        assert bare(await take(later, 7)) == records(6, 12)
        await later.close()
        assert dict(await broker.tails()) == {0: record(12).position}

    @pytest.mark.parametrize("offset", ["0", "7", "other:7", "2020-01-01 00:00:00+00:00:12", "a:b"])
    async def test_an_offset_that_nobody_gave_means_the_beginning(
        self, broker: Broker, offset: str
    ) -> None:
        self._needs_memory()
        await broker.publish(records(1, 5))
        subscription = await broker.subscribe(0, offset)
        assert bare(await take(subscription, 5)) == records(1, 5)
        await subscription.close()

    async def test_an_offset_beyond_the_end_means_the_beginning(self, broker: Broker) -> None:
        """The log came back older: what is after that offset now is not what was expected there."""
        self._needs_memory()
        await broker.publish(records(1, 5))
        first = await broker.subscribe(0, "")
        log, _, number = (await take(first, 5))[-1].offset.rpartition(":")
        await first.close()
        later = await broker.subscribe(0, f"{log}:{int(number) + 100}")
        assert bare(await take(later, 5)) == records(1, 5)
        await later.close()

    async def test_a_log_cut_at_the_front_begins_later(self, broker: Broker, app: str) -> None:
        self._needs_memory()
        await broker.publish(records(1, 6))
        await broker.publish(records(7, 10))
        first = await broker.subscribe(0, "")
        found = await take(first, 10)
        await first.close()
        await self.truncate(app, 0, 4)
        for offset in ("", found[1].offset):
            later = await broker.subscribe(0, offset)
            assert bare(await take(later, 4)) == records(7, 10)
            await later.close()

    async def test_whoever_reads_a_wiped_log_learns_of_it(self, broker: Broker, app: str) -> None:
        """By an error, or by what comes next: never by silence for ever."""
        self._needs_memory()
        await broker.publish(records(1, 3))
        subscription = await broker.subscribe(0, "")
        await take(subscription, 3)
        await self.wipe(app)
        with pytest.raises(UnavailableError):
            await take(subscription, 1)
        await subscription.close()

    async def test_publishing_to_a_wiped_log_is_no_success(self, broker: Broker, app: str) -> None:
        self._needs_memory()
        await broker.publish(records(1, 3))
        await self.wipe(app)
        with pytest.raises(UnavailableError):
            await broker.publish(records(4, 6))
        await broker.open(app, 4)
        await broker.publish(records(4, 6))
        assert dict(await broker.tails()) == {0: record(6).position}


async def _insist(broker: Broker, some: list[Record]) -> None:
    """Publish, again where the broker is not certain."""
    while True:
        try:
            await broker.publish(some)
        except UnavailableError:
            continue
        return
