from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from readside.adapters.redis.store import RedisStore
from readside.core.folding import Batch, Stored, Write
from readside.ports.store import Outcome
from readside.testing.conformance.ground import checkpoint, positions
from readside.testing.conformance.store import StoreContract


class TestRedisStore(StoreContract):
    traits = RedisStore.traits

    @pytest.fixture(autouse=True)
    def server(self, servers, unique):
        self.url, self.app = servers.read_store, unique

    async def make(self):
        store = RedisStore(self.url)
        await store.open(self.app)
        return store

    async def peek(self, name):
        async with Redis.from_url(self.url) as client:
            return await client.get(name)

    async def test_scripts_that_the_server_has_forgotten_are_sent_again(self, store, projection):
        before = None
        for nth in (1, 2, 3):
            async with Redis.from_url(self.url) as client:
                await client.script_flush()
            write = Write("x", positions(nth - 1) if before else "", positions(nth), b"%d" % nth)
            batch = Batch(projection, 0, before, checkpoint(nth), (write,))
            async with asyncio.timeout(10):
                assert await store.apply(batch) is Outcome.APPLIED
            before = checkpoint(nth)
        assert await store.load(projection, ["x"]) == [Stored(b"3", positions(3))]
