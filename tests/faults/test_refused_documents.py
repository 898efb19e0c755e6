"""A table refuses a document: it is parked at the very event, everything else flows, a retry mends it."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest

import readside
from readside.adapters.postgres.session import Session
from readside.operate.dead_letters import DeadLetters


class Stocked(readside.Event, key="id"):
    id: str
    change: int


class Labelled(readside.Event, key="id"):
    id: str
    label: str


class Product(readside.View):
    stock: int = 0
    label: str | None = None


TABLE = readside.Table(constraints=("CHECK (stock >= 0)", "UNIQUE (label)"))


class World:
    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.products = app.projection("product", Product, table=TABLE)

        @self.products.on
        def stocked(event: Stocked, product: Product | None) -> Product:
            found = product or Product()
            return msgspec.structs.replace(found, stock=found.stock + event.change)

        @self.products.on
        def labelled(event: Labelled, product: Product | None) -> Product:
            return msgspec.structs.replace(product or Product(), label=event.label)

    async def write(self, *events: readside.Event) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*events)
        return tx.token

    async def retry(self) -> list[str]:
        runtime = await self.app.runtime()
        session = Session((await runtime.addresses()).write_store, "test")
        try:
            letters = DeadLetters(session, self.app.name)
            found = await letters.find()
            store = await runtime.store()
            return [(await letters.retry(one, self.products, store)).error for one in found]
        finally:
            await session.close()

    def alter(self, change: str) -> None:
        table = f"{self.app.name}.product"
        with psycopg.connect(self.app.settings.write_store, autocommit=True) as connection:
            found = connection.execute(
                "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = %s",
                [table, change],
            ).fetchone()
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {found[0]}".encode())


@pytest.fixture
async def world(make_app: Any, broker_url: str) -> Any:
    world = World(make_app(broker_url, read_store="postgresql:"))
    yield world
    await world.app.close()


async def test_it_stands_as_it_was_before_the_event_that_made_it_impossible(
    world: World, run: Any
) -> None:
    async with run(world.app):
        token = await world.write(
            Stocked("a", 3), Stocked("a", -1), Stocked("a", -50), Stocked("a", 4), Stocked("b", 1)
        )
        with pytest.raises(readside.ParkedError):
            await world.products.get("a", after=token)
        assert await world.products.get("a") == Product(2)
        assert await world.products.get("b", after=token) == Product(1)
        assert "violates check constraint" in (await world.retry())[0]
        token = await world.write(Stocked("a", 7))
        with pytest.raises(readside.ParkedError):
            await world.products.get("a", after=token)
        assert await world.products.get("a") == Product(2)
        world.alter("c")
        assert await world.retry() == [""]
        assert await world.products.get("a", after=token) == Product(-37)


async def test_of_two_that_want_the_same_one_waits(world: World, run: Any) -> None:
    async with run(world.app):
        token = await world.write(*(Labelled(str(n), f"label {n // 2}") for n in range(40)))
        parked = 0
        for number in range(40):
            try:
                found = await world.products.get(number, after=token)
            except readside.ParkedError:
                parked += 1
                assert await world.products.get(number) is None
            else:
                assert found == Product(0, f"label {number // 2}")
        assert parked == 20
        world.alter("u")
        assert set(await world.retry()) == {""}
        assert None not in await world.products.get_many(range(40), after=token)
