"""A Valkey which is there and takes no writes: demoted to a replica, or full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

import readside
from readside.adapters.embedded import EmbeddedServers
from readside.adapters.embedded.ports import LOOPBACK, free_port
from readside.adapters.redis.store import RedisStore
from readside.core.folding import Batch, Write
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.operate.status import PartitionStatus, status
from readside.ports.store import Outcome

BATCH = Batch(
    "thing", 0, None, Checkpoint(Position(1, 1, 1), 1, "", 1), [Write("a", "", "0:1", b"{}")]
)


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of this module's own."""
    group = EmbeddedServers(None, services=frozenset({"valkey"}))
    try:
        yield asyncio.run(group.start()).read_store
    finally:
        group.stop_now()


class World:
    def __init__(self, app: readside.App, server: Any) -> None:
        self.app = app
        self.server = server
        self.histories = app.projection(f"{app.name}-history", History)

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, number: int) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(Counted("a", number))
        return tx.token

    async def partition(self, number: int) -> PartitionStatus:
        dsn = (await (await self.app.runtime()).addresses()).write_store
        (found,) = [
            one
            for one in (await status(dsn, self.app.name)).projections
            if one.name == self.histories.name
        ]
        return found.partitions[number]

    async def retries(self, token: readside.Token, said: str) -> None:
        """Wait until the event's partition is retried for that reason, and see that it stays so."""
        (number,) = token.partitions
        async with asyncio.timeout(60):
            while (await self.partition(number)).state != "retrying":
                await asyncio.sleep(0.05)
        for _ in range(20):
            found = await self.partition(number)
            assert found.state == "retrying"
            assert said in found.detail
            assert found.parked_documents == 0
            await asyncio.sleep(0.1)

    async def connections(self) -> set[str]:
        return {one["id"] for one in await self.server.client_list() if one["name"] == "readside"}


@pytest.fixture
async def world(make_app: Any, url: str) -> AsyncIterator[World]:
    async with Redis.from_url(url) as server:
        world = World(make_app(read_store=url), server)
        yield world
        await world.app.close()


@asynccontextmanager
async def demoted(server: Any, **settings: str) -> AsyncIterator[None]:
    """The server is the replica of one that is away."""
    for name, value in settings.items():
        await server.config_set(name.replace("_", "-"), value)
    await server.replicaof(LOOPBACK, free_port())
    try:
        yield
    finally:
        await server.replicaof("NO", "ONE")
        await server.config_set("replica-serve-stale-data", "yes")


@asynccontextmanager
async def full(server: Any) -> AsyncIterator[None]:
    await server.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await server.config_set("maxmemory", 0)


@pytest.mark.parametrize(("stale", "word"), [("yes", "READONLY"), ("no", "MASTERDOWN")])
async def test_whoever_meets_a_replica_connects_anew(
    url: str, unique: str, stale: str, word: str
) -> None:
    store = RedisStore(url)
    await store.open(unique)
    async with Redis.from_url(url) as server:
        before = await store._client.client_id()
        async with demoted(server, replica_serve_stale_data=stale):
            with pytest.raises(readside.UnavailableError, match=word):
                await store.apply(BATCH)
            assert str(before) not in {one["id"] for one in await server.client_list()}
        assert await store.apply(BATCH) is Outcome.APPLIED
        assert await store._client.client_id() > before
    await store.close()


async def test_events_wait_for_a_primary_and_connections_are_new(world: World, run: Any) -> None:
    async with run(world.app):
        assert await world.histories.get("a", after=await world.write(1), timeout=60)
        reader = {str(await (await (await world.app.runtime()).store())._client.client_id())}
        before = await world.connections() - reader  # to read, a replica is good enough
        assert before
        async with demoted(world.server):
            token = await world.write(2)
            await world.retries(token, "READONLY")
            assert not before & await world.connections()
        found = await world.histories.get("a", after=token, timeout=60)
        assert found == History([1, 2])


async def test_events_wait_for_room(world: World, run: Any) -> None:
    async with run(world.app):
        assert await world.histories.get("a", after=await world.write(1), timeout=60)
        async with full(world.server):
            token = await world.write(2)
            await world.retries(token, "OOM")
            assert await world.histories.get("a") == History([1])
        found = await world.histories.get("a", after=token, timeout=60)
        assert found == History([1, 2])
