"""Commands that wait for a read store which is stopped, frozen, or not there yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import readside
from readside.adapters.embedded import EmbeddedServers

PATIENCE = 60.0
#: Seconds after which the stores' own clients take a silent server for gone, the quickest of them: a
#: command that was kept so long has not kept its deadline.
GIVEN_UP = 15.0


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


class Reads:
    """A read store of this module's own."""

    def __init__(self, name: str) -> None:
        self.group = EmbeddedServers(None, services=frozenset({name}))
        addresses = asyncio.run(self.group.start())
        self.url = addresses.write_store or addresses.read_store
        self.server = self.group[name]


@pytest.fixture(scope="module", params=["valkey", "postgres"])
def reads(request: pytest.FixtureRequest) -> Iterator[Reads]:
    reads = Reads(request.param)
    yield reads
    reads.group.stop_now()


class World:
    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.written = 0
        self.histories = app.projection(f"{app.name}-history", History, mode="wait")

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, timeout: float = PATIENCE) -> Any:
        self.written += 1
        event = Counted("a", self.written)
        async with self.app.transaction(timeout=timeout) as tx:
            tx.record(event)
        return tx

    async def late(self, timeout: float) -> BaseException:
        """Write while the view cannot follow; return why not."""
        began = time.monotonic()
        tx = await self.write(timeout)
        assert time.monotonic() - began < GIVEN_UP
        assert tx.token
        return tx.late[self.histories.name]

    async def shows_everything(self) -> None:
        """Write once more, wait however often the store is away, and compare."""
        token = (await self.write()).token
        while await self.app.wait(token, timeout=PATIENCE):
            await asyncio.sleep(0.05)
        found = await self.histories.get("a", after=token)
        assert found is not None
        assert sorted(found.numbers) == list(range(1, self.written + 1))


@pytest.fixture
async def world(make_app: Any, broker_url: str, reads: Reads) -> Any:
    world = World(make_app(broker_url, read_store=reads.url))
    yield world
    reads.server.resume()
    await world.app.close()


async def test_stopped(world: World, reads: Reads, run: Any) -> None:
    async with run(world.app):
        assert not (await world.write()).late
        reads.server.kill()
        for _ in range(5):
            assert isinstance(await world.late(PATIENCE), readside.UnavailableError)
        await reads.server.start()
        await world.shows_everything()
        assert not (await world.write()).late


async def test_frozen(world: World, reads: Reads, run: Any) -> None:
    async with run(world.app):
        assert not (await world.write()).late
        reads.server.pause()
        for _ in range(3):
            assert isinstance(await world.late(0.5), readside.ReadsideError)
        answers = await asyncio.gather(*(world.late(0.5) for _ in range(20)))
        assert len(answers) == 20
        reads.server.resume()
        await world.shows_everything()
        assert not (await world.write()).late


async def test_frozen_before_the_first_connection(
    world: World, reads: Reads, run: Any, make_app: Any
) -> None:
    async with run(world.app):
        await world.shows_everything()
        application = World(make_app(world.app.settings.broker, read_store=reads.url))
        application.written = world.written
        reads.server.pause()
        for _ in range(3):
            assert isinstance(await application.late(0.5), readside.UnavailableError)
        reads.server.resume()
        await application.shows_everything()
        await application.app.close()
