"""What every broker has to pass."""

from __future__ import annotations

import asyncio

import pytest

from readside.core.batching import Limits
from readside.core.errors import RefusedError
from readside.core.position import Position
from readside.core.record import Record, Watermark
from readside.ports.broker import Broker, Delivery
from readside.ports.traits import Promise
from readside.testing.conformance.broker_ground import (
    BRIEFLY,
    LIMITS,
    PATIENCE,
    bare,
    record,
    records,
    take,
)
from readside.testing.conformance.remembering import Remembering
from readside.testing.conformance.store import KEYS


class BrokerContract(Remembering):
    """A log for each partition. Each test has an app, and with it a log, of its own."""

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

    async def test_others_read_plain_json(self, broker: Broker, app: str) -> None:
        if self.traits.serves_others is Promise.NEVER:
            pytest.skip("this broker serves nobody else")
        await broker.publish(records(1, 5, 2))
        assert await self.peek(app, 2) == [one.payload for one in records(1, 5)]
