"""A read store in another database: away, brought back as it was a while ago, emptied."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import readside


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


class Database:
    """A database of its own, which can be copied and taken back."""

    def __init__(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        self.url = server.rpartition("/")[0] + f"/{name}"
        self._do(f"CREATE DATABASE {name}")

    def _do(self, *statements: str) -> None:
        with psycopg.connect(make_conninfo(self.server), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def refuse(self) -> None:
        self._do(
            f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'",
        )

    def admit(self) -> None:
        self._do(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def copy(self) -> None:
        self.refuse()
        self._until_nobody_is_there()
        self._do(f"CREATE DATABASE {self.name}_copy TEMPLATE {self.name}")
        self.admit()

    def _until_nobody_is_there(self) -> None:
        with psycopg.connect(make_conninfo(self.server), autocommit=True) as connection:
            query = "SELECT FROM pg_stat_activity WHERE datname = %s"
            while connection.execute(query, [self.name]).rowcount:
                pass

    def take_back(self) -> None:
        self._do(
            f"DROP DATABASE {self.name} WITH (FORCE)",
            f"ALTER DATABASE {self.name}_copy RENAME TO {self.name}",
        )

    def remove(self) -> None:
        for name in (self.name, f"{self.name}_copy"):
            self._do(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def database(servers: Any, unique: str) -> Iterator[Database]:
    database = Database(servers.write_store, f"{unique}_read")
    yield database
    database.remove()


class World:
    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.written = 0
        self.histories = app.projection("history", History)

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, count: int) -> readside.Token:
        for _ in range(count):
            self.written += 1
            async with self.app.transaction() as tx:
                tx.record(Counted("a", self.written), Counted(str(self.written), self.written))
        return tx.token

    async def in_step(self, token: readside.Token) -> None:
        """Wait for the token however often the read store is away, and compare."""
        token = readside.Token(token.position, tuple(range(8)))
        while True:
            try:
                found = await self.histories.get("a", after=token, timeout=60)
                rest = await self.histories.get_many(range(1, self.written + 1), after=token)
            except readside.UnavailableError:
                await asyncio.sleep(0.05)
                continue
            break
        assert found == History(list(range(1, self.written + 1)))
        assert rest == [History([number]) for number in range(1, self.written + 1)]


@pytest.fixture
async def world(make_app: Any, broker_url: str, database: Database) -> Any:
    world = World(make_app(broker_url, read_store=database.url))
    yield world
    await world.app.close()


async def test_it_may_be_away_and_come_back(world: World, database: Database, run: Any) -> None:
    async with run(world.app):
        await world.in_step(await world.write(5))
        database.refuse()
        token = await world.write(5)
        with pytest.raises(readside.ReadsideError):
            await world.histories.get("a")
        database.admit()
        await world.in_step(token)


async def test_what_goes_back_in_time_is_brought_forward_again(
    world: World, database: Database, run: Any
) -> None:
    async with run(world.app):
        await world.in_step(await world.write(5))
        database.copy()
        await world.in_step(await world.write(20))
        database.take_back()
        await world.in_step(await world.write(1))


async def test_what_was_restored_while_nobody_looked_is_seen_by_its_checkpoints(
    world: World, database: Database, run: Any
) -> None:
    async with run(world.app):
        await world.in_step(await world.write(5))
    database.copy()
    async with run(world.app):
        await world.in_step(await world.write(10))
    database.take_back()
    async with run(world.app):
        await world.in_step(await world.write(1))
