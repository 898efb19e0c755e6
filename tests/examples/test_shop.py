"""The shop, in every way to run it: the same read models, which are those of PostgreSQL's own tables."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import examples.shop
import msgspec
import psycopg
import pytest
from proofs.ways import Place, opened, ways
from redis.asyncio import Redis

import readside
from readside.adapters.embedded import Addresses

WRITERS, COMMANDS = 4, 60
HANDLES = [f"user-{n}" for n in range(6)]
SKUS = [f"sku-{n}" for n in range(4)]

#: What the read models have to be, by tables that nobody reads.
TRUTH = {
    "user": "SELECT handle AS key, handle, name, coalesce(sum(total), 0)::int AS spent FROM users"
    " LEFT JOIN totals USING (handle) GROUP BY handle",
    "product": "SELECT sku AS key, sku, name, price, stock FROM products",
    "order": "SELECT id::text AS key, id, handle, lines, total FROM totals",
    "order_count": "SELECT handle AS key, handle, count(*)::int AS orders FROM orders GROUP BY handle",
}
TOTALS = (
    "WITH totals AS (SELECT id, handle, lines, (SELECT sum((line->>'quantity')::int"
    " * (line->>'price')::int)::int FROM jsonb_array_elements(lines) line) AS total FROM orders) "
)

#: The same in every way, after the story below.
TOLD = {
    "user": {
        "ada": {"handle": "ada", "name": "Ada the Second", "spent": 400},
        "bob": {"handle": "bob", "name": "Bob", "spent": 1000},
    },
    "product": {
        "cup": {"sku": "cup", "name": "Cup", "price": 900, "stock": 1},
        "tea": {"sku": "tea", "name": "Black tea", "price": 400, "stock": 6},
    },
    "order": {
        "2": {
            "id": 2,
            "handle": "bob",
            "lines": [{"sku": "tea", "quantity": 2, "price": 500}],
            "total": 1000,
        },
        "5": {
            "id": 5,
            "handle": "ada",
            "lines": [{"sku": "tea", "quantity": 1, "price": 400}],
            "total": 400,
        },
    },
    "order_count": {
        "ada": {"handle": "ada", "orders": 1},
        "bob": {"handle": "bob", "orders": 1},
    },
}

Models = dict[str, dict[str, Any]]


@pytest.fixture(params=ways(), ids=str)
async def place(request: pytest.FixtureRequest, servers: Addresses) -> AsyncIterator[Place]:
    async with opened(request.param, servers) as place:
        yield place


async def story(place: Place) -> readside.Token:
    """One after the other: users come, go and come again, orders fail, are placed and cancelled."""
    do = place.commands
    await do.list_product("tea", "Green tea", 500)
    await do.list_product("cup", "Cup", 900)
    await do.restock("tea", 9)
    await do.restock("cup", 1)
    await do.create_user("ada", "Ada")
    await do.create_user("bob", "Rob")
    await do.place_order("ada", {"tea": 3, "cup": 1})
    await do.place_order("bob", {"tea": 2})
    with pytest.raises(do.OutOfStockError):
        await do.place_order("bob", {"tea": 1, "cup": 1})
    third, _ = await do.place_order("ada", {"tea": 1})
    await do.cancel_order(third)
    await do.rename_user("bob", "Bob")
    await do.place_order("ada", {"tea": 4})
    await do.delete_user("ada")
    with pytest.raises(do.NotThereError):
        await do.place_order("ada", {"tea": 1})
    await do.create_user("ada", "Ada the Second")
    await do.list_product("tea", "Black tea", 400)
    return (await do.place_order("ada", {"tea": 1}))[1]


class AbandonedError(Exception):
    """A command that has done everything, and then thinks better of it."""


class Writer:
    """Does what chance says, with things that others are at as well."""

    def __init__(self, place: Place, seed: int, done: Counter[str], ids: list[int]) -> None:
        self.do = place.commands
        self.shop = place.shop
        self.chance = random.Random(seed)
        self.done = done
        self.ids = ids
        self.left: set[str] = set()

    async def write(self) -> None:
        acts: list[Callable[[], Awaitable[str]]] = [
            self.create, self.create, self.rename, self.delete, self.restock, self.place,
            self.place, self.place, self.cancel, self.abandon,
        ]  # fmt: skip
        for _ in range(COMMANDS):
            try:
                self.done[await self.chance.choice(acts)()] += 1
            except (self.do.NotThereError, self.do.OutOfStockError) as error:
                self.done[type(error).__name__] += 1
            except (psycopg.errors.UniqueViolation, AbandonedError) as error:
                self.done[type(error).__name__] += 1

    def handle(self) -> str:
        return self.chance.choice(HANDLES)

    async def create(self) -> str:
        handle = self.handle()
        await self.do.create_user(handle, f"name {self.chance.random()}")
        return "re-created" if handle in self.left else "created"

    async def rename(self) -> str:
        await self.do.rename_user(self.handle(), f"name {self.chance.random()}")
        return "renamed"

    async def delete(self) -> str:
        handle = self.handle()
        await self.do.delete_user(handle)
        self.left.add(handle)
        return "deleted"

    async def restock(self) -> str:
        await self.do.restock(self.chance.choice(SKUS), self.chance.randint(1, 6))
        return "restocked"

    async def place(self) -> str:
        skus = self.chance.sample(SKUS, self.chance.randint(1, 3))
        id_, _ = await self.do.place_order(
            self.handle(), {sku: self.chance.randint(1, 3) for sku in skus}
        )
        self.ids.append(id_)
        return "placed"

    async def cancel(self) -> str:
        await self.do.cancel_order(self.chance.choice(self.ids or [0]))
        return "cancelled"

    async def abandon(self) -> str:
        """Rename somebody and take stock away; roll it back after all is recorded."""
        async with self.shop.app.transaction() as tx:
            handle, sku = self.handle(), self.chance.choice(SKUS)
            await tx.execute("UPDATE users SET name = 'nobody' WHERE handle = %s", handle)
            await tx.execute("UPDATE products SET stock = 0 WHERE sku = %s", sku)
            tx.record(self.do.UserRenamed(handle, "nobody"), self.do.StockMoved(sku, -1000))
            raise AbandonedError


async def crowd(place: Place) -> Counter[str]:
    """Writers side by side; what became of their commands."""
    for sku in SKUS:
        await place.commands.list_product(sku, sku, 100 + SKUS.index(sku))
        await place.commands.restock(sku, 5)
    done: Counter[str] = Counter()
    ids: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        for seed in range(WRITERS):
            tasks.create_task(Writer(place, seed, done, ids).write())
    return done


async def truth(place: Place) -> tuple[Models, int]:
    """What the read models have to be, and the highest number an order was ever given."""
    async with place.shop.app.transaction() as tx:
        found = {
            name: {row.key: row._asdict() for row in await tx.fetchall(TOTALS + query)}
            for name, query in TRUTH.items()
        }
        row = await tx.fetchone(
            "SELECT pg_sequence_last_value(pg_get_serial_sequence('orders', 'id')) AS last"
        )
    for rows in found.values():
        for one in rows.values():
            del one["key"]
    return found, row.last


async def models(place: Place, last: int, after: readside.Token) -> Models:
    """The read models, of all keys that anybody ever wrote to."""
    keys = {
        "user": ["ada", "bob", *HANDLES],
        "product": ["cup", "tea", *SKUS],
        "order": [str(id_) for id_ in range(1, last + 1)],
        "order_count": ["ada", "bob", *HANDLES],
    }
    # Everything that was ever committed, not only what the last command touched.
    everywhere = after._replace(partitions=tuple(range(place.shop.app.settings.partitions)))
    found: Models = {}
    for name, projection in place.shop.app.projections.items():
        views = await projection.get_many(keys[name], after=everywhere, timeout=120)
        pairs = zip(keys[name], views, strict=True)
        found[name] = {key: msgspec.to_builtins(view) for key, view in pairs if view is not None}
    return found


async def stored(place: Place) -> Models:
    """All that is stored, as other programs find it: plain JSON, or rows of plain tables."""
    url = place.settings["READSIDE_READ_STORE"]
    if url == "postgresql:":
        async with await psycopg.AsyncConnection.connect(place.dsn) as client:
            return {name: await rows(client, name) for name in TRUTH}
    async with Redis.from_url(url, decode_responses=True) as client:
        return {
            name: {
                key.removeprefix(f"{name}:"): msgspec.json.decode(await client.get(key))
                async for key in client.scan_iter(f"{name}:*")
            }
            for name in TRUTH
        }


async def rows(client: psycopg.AsyncConnection[Any], name: str) -> dict[str, Any]:
    key = {"product": "sku", "order": "id"}.get(name, "handle")
    cursor = await client.execute(f"SELECT {key}::text, to_json(t) FROM shop.{name} t")
    return dict(await cursor.fetchall())


async def test_it_has_the_same_read_models_in_every_way(place: Place, run: Any) -> None:
    for name, value in place.settings.items():  # an unknown one would be passed over
        assert str(getattr(place.shop.app.settings, name.removeprefix("READSIDE_").lower())) in {
            value,
            f"{value}.0",
        }
    assert {one.mode for one in place.shop.app.projections.values()} == {place.way.mode}
    async with run(place.shop.app):
        token = await story(place)
        found, last = await truth(place)
        assert await models(place, last, token) == TOLD == found == await stored(place)

        done = await crowd(place)
        token = await place.commands.restock("cup", 1)
        found, last = await truth(place)
        assert await models(place, last, token) == found == await stored(place)
    assert sum(done.values()) == WRITERS * COMMANDS
    assert {
        "created", "re-created", "deleted", "placed", "cancelled", "AbandonedError",
        "OutOfStockError", "NotThereError", "UniqueViolation",
    } <= set(done)  # fmt: skip


README = Path(examples.shop.__file__).with_name("README.md")


async def test_its_day_goes_as_the_readme_shows(servers: Addresses) -> None:
    async with opened(ways()[0], servers) as place:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.shop", env=os.environ | place.settings,
            cwd=README.parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, complaints = await process.communicate()
    (shown,) = re.findall(r"^    (signed up.*?)\n\n", README.read_text(), re.MULTILINE | re.DOTALL)
    assert said.decode() == f"{textwrap.dedent('    ' + shown)}\n", complaints.decode()
