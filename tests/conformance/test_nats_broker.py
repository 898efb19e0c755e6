from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import nats
import pytest
from nats.js.api import DeliverPolicy

from readside.adapters.nats.broker import NatsBroker
from readside.testing.conformance.broker import BrokerContract


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
