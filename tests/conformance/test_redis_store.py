from __future__ import annotations

import pytest
from redis.asyncio import Redis

from readside.adapters.redis.store import RedisStore
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
