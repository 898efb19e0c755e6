"""What every broker has to pass."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from readside.core.batching import Limits
from readside.core.errors import RefusedError, UnavailableError
from readside.core.position import BEGINNING, Position
from readside.core.record import Record, Watermark
from readside.ports.broker import Broker, BrokerTraits, Delivery, Subscription
from readside.ports.traits import Promise
from readside.testing.conformance.store import KEYS

#: Seconds after which something that has to come counts as lost; no test waits so long in vain.
PATIENCE = 20.0
#: Seconds to wait for what must not come.
BRIEFLY = 0.2
LIMITS = Limits()


def record(nth: int, partition: int = 0, **fields: Any) -> Record:
    """Record number `nth` of a partition."""
    at = Position(7, nth * 16, 1)
    before = Position(7, (nth - 1) * 16, 1) if nth > 1 else BEGINNING
    made = Record(
        partition,
        at,
        before,
        nth,
        f"id-{nth}",
        "thing.done",
        f"key-{nth % 5}",
        1,
        f'{{"nth":{nth}}}'.encode(),
        1_700_000_000_000_000 + nth,
    )
    return made._replace(**fields)


def records(first: int, last: int, partition: int = 0) -> list[Record]:
    """Records number `first` to `last` of a partition."""
    return [record(nth, partition) for nth in range(first, last + 1)]


def bare(some: Sequence[Record]) -> list[Record]:
    """The records without the offsets that the broker's log gave them."""
    return [one._replace(offset="") for one in some]


async def take(subscription: Subscription, count: int, limits: Limits = LIMITS) -> list[Record]:
    """Read until there are `count` records.

    Raises:
        TimeoutError: they did not come.
    """
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += (await subscription.read(limits, 0.5)).records
    return found


class BrokerContract(ABC):
    """A log for each partition. Each test has an app, and with it a log, of its own."""

    traits: ClassVar[BrokerTraits]
    #: Records that a reader may have to be sent at once.
    many: ClassVar[int] = 3000
    #: Whether each record has an offset of its own. Where records travel together, whoever goes on
    #: in the middle gets again those that came before it in the same message.
    exact: ClassVar[bool] = True
    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make(self) -> Broker:
        """A broker that is not open yet; each call gives another connection to the same server."""

    async def peek(self, app: str, partition: int) -> list[bytes]:
        """The payloads of a partition, read with the vendor's own client."""
        raise NotImplementedError

    async def wipe(self, app: str) -> None:
        """Delete the app's log behind the adapter's back."""
        raise NotImplementedError

    async def truncate(self, app: str, partition: int, keep: int) -> None:
        """Delete all records of a partition but the newest `keep`, behind the adapter's back."""
        raise NotImplementedError

    @pytest.fixture
    def app(self) -> str:
        """An app that no other test has."""
        return f"t{uuid4().hex[:10]}"

    @pytest_asyncio.fixture
    async def broker(self, app: str) -> AsyncIterator[Broker]:
        broker = await self.make()
        await broker.open(app, 4)
        yield broker
        await broker.close()

    def _needs_memory(self) -> None:
        if self.traits.remembers is Promise.NEVER:
            pytest.skip("this broker remembers nothing")

    async def test_it_says_what_it_promises(self, broker: Broker) -> None:
        assert broker.traits == self.traits
        assert all(isinstance(answer, Promise) for answer in self.traits)

    async def test_what_is_published_comes_in_order(self, broker: Broker) -> None:
        subscription = await broker.subscribe(0, "")
        await broker.publish(records(1, 3))
        await broker.publish([record(4)])
        await broker.publish(records(5, 1000))
        assert bare(await take(subscription, 1000)) == records(1, 1000)
        await subscription.close()

    async def test_nothing_is_nothing(self, broker: Broker) -> None:
        await broker.publish([])
        await broker.announce([])
        subscription = await broker.subscribe(0, "")
        assert await subscription.read(LIMITS, 0) == Delivery([], None)
        await subscription.close()

    async def test_reading_waits_no_longer_than_it_was_told(self, broker: Broker) -> None:
        subscription = await broker.subscribe(0, "")
        async with asyncio.timeout(PATIENCE):
            assert await subscription.read(LIMITS, 0.05) == Delivery([], None)
        await subscription.close()

    async def test_whoever_waits_is_woken(self, broker: Broker) -> None:
        subscription = await broker.subscribe(2, "")
        waiting = asyncio.ensure_future(subscription.read(LIMITS, PATIENCE * 10))
        await asyncio.sleep(0)
        await broker.publish([record(1, 2)])
        async with asyncio.timeout(PATIENCE):
            assert bare((await waiting).records) == [record(1, 2)]
        await subscription.close()

    async def test_partitions_are_apart(self, broker: Broker) -> None:
        subscriptions = [await broker.subscribe(number, "") for number in range(4)]
        mixed = [record(nth, number) for nth in range(1, 30) for number in (3, 0, 2)]
        await broker.publish(mixed)
        for number in (0, 2, 3):
            assert bare(await take(subscriptions[number], 29)) == records(1, 29, number)
        assert (await subscriptions[1].read(LIMITS, BRIEFLY)).records == []
        for subscription in subscriptions:
            await subscription.close()

    async def test_everybody_who_reads_gets_everything(self, broker: Broker) -> None:
        readers = [await broker.subscribe(0, "") for _ in range(3)]
        await broker.publish(records(1, 50))
        for reader in readers:
            assert bare(await take(reader, 50)) == records(1, 50)
            await reader.close()

    async def test_every_field_travels(self, broker: Broker) -> None:
        sent = [
            record(
                nth,
                key=key,
                id=f"00000000-0000-4000-8000-{nth:012d}",
                type="user.e-mail_changed.2",
                version=77,
                payload=f'{{"text":"ключ {nth} \U0001f511"}}'.encode(),
                headers=b'{"traceparent":"00-ab-cd-01","tracestate":"a=\xc3\xa4 %41"}',
                position=Position(0xFFFFFFFF, 2**64 - 100 + nth, 2**32 - 1),
                predecessor=Position(0xFFFFFFFF, 2**64 - 101 + nth, 2**32 - 1),
            )
            for nth, key in enumerate(KEYS, 1)
        ]
        subscription = await broker.subscribe(1, "")
        sent = [one._replace(partition=1) for one in sent]
        await broker.publish(sent)
        assert bare(await take(subscription, len(sent))) == sent
        await subscription.close()

    async def test_a_large_batch_comes_whole(self, broker: Broker) -> None:
        subscription = await broker.subscribe(0, "")
        publishing = asyncio.ensure_future(broker.publish(records(1, self.many)))
        assert bare(await take(subscription, self.many)) == records(1, self.many)
        await publishing
        await subscription.close()

    async def test_big_payloads_pass(self, broker: Broker) -> None:
        await broker.check(512 * 1024)
        subscription = await broker.subscribe(0, "")
        sent = [record(nth, payload=b'"%s"' % (b"x" * 512 * 1024)) for nth in range(1, 6)]
        sent.insert(2, record(9))
        publishing = asyncio.ensure_future(broker.publish(sent))
        assert bare(await take(subscription, len(sent))) == sent
        await publishing
        await subscription.close()

    async def test_a_batch_is_bounded(self, broker: Broker) -> None:
        subscription = await broker.subscribe(0, "")
        await broker.publish(records(1, 100))
        found: list[Record] = []
        while len(found) < 100:
            some = (await subscription.read(Limits(records=7), 0.5)).records
            assert len(some) <= 7
            found += some
        assert bare(found) == records(1, 100)
        await broker.publish([record(101, payload=b'"%s"' % (b"x" * 100)), *records(102, 110)])
        found = await take(subscription, 1, Limits(size=50))
        assert [one.nth for one in found] == [101]
        await subscription.close()

    async def test_a_closed_subscription_disturbs_nobody(self, broker: Broker) -> None:
        closed, open_ = await broker.subscribe(0, ""), await broker.subscribe(0, "")
        await closed.close()
        async with asyncio.timeout(PATIENCE):
            await broker.publish(records(1, 20))
        assert bare(await take(open_, 20)) == records(1, 20)
        await open_.close()

    async def test_a_watermark_reaches_who_reads(self, broker: Broker) -> None:
        subscription = await broker.subscribe(3, "")
        other = await broker.subscribe(2, "")
        said = Watermark(3, Position(7, 2**60 + 1, 3), 12, Position(7, 2**60 + 900, 0))
        await broker.announce([said])
        async with asyncio.timeout(PATIENCE):
            while (heard := (await subscription.read(LIMITS, 0.5)).watermark) is None:
                await broker.announce([said])  # it may be lost
        assert heard == said
        assert (await other.read(LIMITS, BRIEFLY)).watermark is None
        await subscription.close()
        await other.close()

    async def test_the_newest_watermark_is_heard(self, broker: Broker) -> None:
        subscription = await broker.subscribe(0, "")
        await broker.publish([record(1)])
        said = [Watermark(0, record(1).position, 1, Position(7, n, 0)) for n in (16, 32, 48)]
        await broker.announce(said)
        heard: list[Watermark] = []
        async with asyncio.timeout(PATIENCE):
            while not heard or heard[-1] != said[-1]:
                found = (await subscription.read(LIMITS, 0.2)).watermark
                heard += [found] if found else []
                if not found:
                    await broker.announce(said[-1:])
        assert heard == sorted(heard, key=lambda watermark: watermark.position)
        await subscription.close()

    async def test_what_cannot_pass_is_refused_beforehand(self, broker: Broker) -> None:
        if self.traits.remembers is Promise.NEVER:
            await broker.check(2**40)
            return
        with pytest.raises(RefusedError):
            await broker.check(2**40)

    async def test_opening_again_changes_nothing(self, broker: Broker, app: str) -> None:
        subscription = await broker.subscribe(0, "")
        await broker.publish(records(1, 3))
        await broker.open(app, 4)
        await broker.publish(records(4, 6))
        assert bare(await take(subscription, 6)) == records(1, 6)
        await subscription.close()

    async def test_what_is_published_again_may_come_again(self, broker: Broker) -> None:
        subscription = await broker.subscribe(0, "")
        await broker.publish(records(1, 4))
        await broker.publish(records(3, 6))
        found = await take(subscription, 6)
        assert list(dict.fromkeys(bare(found))) == records(1, 6)
        await subscription.close()

    async def test_a_re_send_is_never_swallowed(self, broker: Broker) -> None:
        """A reader that comes later, or lost its place, needs what was published twice."""
        await broker.publish(records(1, 3))
        late = await broker.subscribe(0, "")
        if self.traits.remembers is not Promise.NEVER:
            await take(late, 3)
        await broker.publish(records(1, 3))
        assert bare(await take(late, 3)) == records(1, 3)
        await late.close()

    # What only a log can do.

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

    async def test_others_read_plain_json(self, broker: Broker, app: str) -> None:
        if self.traits.serves_others is Promise.NEVER:
            pytest.skip("this broker serves nobody else")
        await broker.publish(records(1, 5, 2))
        assert await self.peek(app, 2) == [one.payload for one in records(1, 5)]


async def _insist(broker: Broker, some: list[Record]) -> None:
    """Publish, again where the broker is not certain."""
    while True:
        try:
            await broker.publish(some)
        except UnavailableError:
            continue
        return
