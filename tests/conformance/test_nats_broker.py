from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import nats
import pytest
from nats.js.api import DeliverPolicy, DiscardPolicy, RetentionPolicy

from readside.adapters.nats.broker import NatsBroker
from readside.core.errors import BrokerUncertainError, RefusedError
from readside.testing.conformance.broker import BrokerContract
from readside.testing.conformance.broker_ground import bare, record, records, take


class TestNatsBroker(BrokerContract):
    traits = NatsBroker.traits

    @pytest.fixture(autouse=True)
    def server(self, servers):
        self.url = servers.broker

    @asynccontextmanager
    async def stream(self):
        client = await nats.connect(self.url)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def make(self):
        return NatsBroker(self.url)

    async def peek(self, app, partition):
        async with self.stream() as stream:
            subscription = await stream.subscribe(
                f"{app}.{partition}.>", ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
            )
            info = await stream.stream_info(f"readside_{app}")
            return [(await subscription.next_msg()).data for _ in range(info.state.messages)]

    async def wipe(self, app):
        async with self.stream() as stream:
            await stream.delete_stream(f"readside_{app}")

    async def truncate(self, app, partition, keep):
        async with self.stream() as stream:
            await stream.purge_stream(f"readside_{app}", subject=f"{app}.{partition}.>", keep=keep)

    async def edit(self, app, **limits):
        async with self.stream() as stream:
            config = (await stream.stream_info(f"readside_{app}")).config
            await stream.update_stream(config.evolve(**limits))

    async def test_the_last_acknowledgement_proves_what_came_before_it(self, broker, app):
        """The server refuses one in the middle; nobody waits for what it says to that."""
        await broker.publish(records(1, 3))
        await self.edit(app, max_msg_size=2000)
        middle = record(5)._replace(payload=b'"%s"' % (b"x" * 4000))
        with pytest.raises(BrokerUncertainError, match="is at"):
            await broker.publish([record(4), middle, record(6, 1)])
        await self.edit(app, max_msg_size=-1)
        await broker.publish([record(4), middle, record(6, 1)])
        subscription = await broker.subscribe(0, "")
        found = bare(await take(subscription, 6 if self.exact else 5))
        assert list(dict.fromkeys(found)) == [*records(1, 4), middle]
        await subscription.close()

    @pytest.mark.parametrize(
        "limits",
        [{"max_msgs": 100}, {"max_bytes": 1024**2}, {"max_msgs_per_subject": 10}],
        ids=lambda limits: next(iter(limits)),
    )
    async def test_a_stream_that_would_drop_its_oldest_is_refused(self, broker, app, limits):
        await self.edit(app, discard=DiscardPolicy.OLD, **limits)
        with pytest.raises(RefusedError, match="would drop records"):
            await broker.open(app, 4)
        await self.edit(app, discard=DiscardPolicy.NEW)
        await broker.open(app, 4)

    async def test_a_stream_that_would_drop_what_was_read_is_refused(self, broker, app):
        await self.wipe(app)
        async with self.stream() as stream:
            await stream.add_stream(
                name=f"readside_{app}",
                subjects=[f"{app}.*.>"],
                retention=RetentionPolicy.WORK_QUEUE,
            )
        with pytest.raises(RefusedError, match="would drop records"):
            await broker.open(app, 4)


def payloads(message):
    """What another program finds in a message."""
    if not message.subject.endswith(".$frame"):
        return [message.data]
    return [row[6] for row in msgspec.msgpack.decode(message.data)[4]]


class TestNatsFrames(TestNatsBroker):
    """The same, where records that are published together share a message."""

    exact = False

    async def make(self):
        return NatsBroker(f"{self.url}?frames=on")

    async def messages(self, app, partition):
        name = f"readside_{app}"
        async with self.stream() as stream:
            state = (await stream.stream_info(name)).state
            numbers = range(state.first_seq, state.last_seq + 1)
            found = [await stream.get_msg(name, number) for number in numbers]
        return [one for one in found if one.subject.startswith(f"{app}.{partition}.")]

    async def peek(self, app, partition):
        return [one for message in await self.messages(app, partition) for one in payloads(message)]

    async def truncate(self, app, partition, keep):
        held = 0
        for count, message in enumerate(reversed(await self.messages(app, partition)), 1):
            held += len(payloads(message))
            if held == keep:
                return await super().truncate(app, partition, count)
        raise AssertionError(f"no messages hold just {keep} records")
