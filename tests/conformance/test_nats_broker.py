from __future__ import annotations

from contextlib import asynccontextmanager

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
