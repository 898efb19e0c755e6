"""Whoever writes reads it: many writers, each of which reads everything that it has written, at once.

Each writer has a user of its own, so it knows to the letter what the read models have to say: name, sum, orders and
their number. A read that says anything older is stale. Products are shared, so that writers meet.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any

import readside
from proofs.figures import Row, milliseconds
from proofs.service import service
from proofs.ways import Place

WRITERS = 8
_SKUS = ("cup", "pot", "tea")
_PRICE = 100
_PATIENCE = 60.0


class Customer:
    """Writes, and reads what that made of the read models."""

    def __init__(self, place: Place, number: int) -> None:
        self._do, self._shop = place.commands, place.shop
        self._chance = random.Random(number)
        self.handle = f"customer-{number}"
        self._name: str | None = None
        self._orders: dict[int, list[Any]] = {}
        #: Whether to read with the token of the write. Where the command itself has waited, nobody needs to.
        self.waits = place.way.mode != "wait"
        #: Seconds that each command took.
        self.took: list[float] = []
        #: Seconds from the command's end to when everything that it did was read.
        self.waited: list[float] = []
        self.reads = 0
        self.late = 0
        #: Reads that were older than the write before, as (read, expected).
        self.stale: list[str] = []

    async def shop_until(self, deadline: float) -> None:
        """Write and read, again and again."""
        while time.monotonic() < deadline:
            await self.step()

    async def step(self) -> None:
        """One command, and everything that it changed."""
        began = time.perf_counter()
        id_, token = await self._act()
        done = time.perf_counter()
        await asyncio.gather(*self._looks(id_, token if self.waits else None))
        self.took.append(done - began)
        self.waited.append(time.perf_counter() - done)

    async def _act(self) -> tuple[int, Any]:
        """A command that is possible now; the order that it concerns, and its token."""
        chance = self._chance.random()
        if self._name is None:
            self._name = f"{self.handle} {chance}"
            return 0, await self._do.create_user(self.handle, self._name)
        if chance < 0.1:
            self._name = None
            self._orders.clear()
            return 0, await self._do.delete_user(self.handle)
        if chance < 0.4:
            self._name = f"{self.handle} {chance}"
            return 0, await self._do.rename_user(self.handle, self._name)
        if chance < 0.6 and self._orders:
            id_ = self._chance.choice(list(self._orders))
            del self._orders[id_]
            return id_, await self._do.cancel_order(id_)
        basket = {sku: self._chance.randint(1, 3) for sku in self._chance.sample(_SKUS, 2)}
        id_, token = await self._do.place_order(self.handle, basket)
        line = self._do.Line
        self._orders[id_] = [line(sku, count, _PRICE) for sku, count in sorted(basket.items())]
        return id_, token

    def _looks(self, id_: int, token: Any) -> list[Awaitable[None]]:
        shop, view = self._shop, self._shop.views
        sums = {
            id_: sum(line.quantity * line.price for line in lines)
            for id_, lines in self._orders.items()
        }
        user = view.User(self.handle, self._name, sum(sums.values())) if self._name else None
        count = view.OrderCount(self.handle, len(sums)) if sums else None
        lines = self._orders.get(id_)
        order = view.Order(id_, self.handle, lines, sums[id_]) if lines else None
        return [
            self._look(shop.users, self.handle, token, user),
            self._look(shop.order_counts, self.handle, token, count),
            *([self._look(shop.orders, id_, token, order)] if id_ else []),
        ]

    async def _look(self, projection: Any, key: object, token: Any, expected: object) -> None:
        try:
            found = await projection.get(key, after=token, timeout=_PATIENCE)
        except readside.StaleReadError:
            self.late += 1
            return
        self.reads += 1
        if found != expected:
            self.stale.append(f"{found}, not {expected}")


async def reads(place: Place, seconds: float) -> tuple[Row, list[str]]:
    """Let customers shop; what they found, and what is wrong about it."""
    customers = [Customer(place, number) for number in range(WRITERS)]
    async with service(place):
        for sku in _SKUS:
            await place.commands.list_product(sku, sku, _PRICE)
            await place.commands.restock(sku, 10**8)
        for customer in customers:  # until everything runs
            await customer.step()
            customer.waited.clear()
            customer.took.clear()
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for customer in customers:
                tasks.create_task(customer.shop_until(deadline))
    stale = [what for customer in customers for what in customer.stale]
    late = sum(customer.late for customer in customers)
    waited = [wait for customer in customers for wait in customer.waited]
    row = {
        "way": str(place.way),
        "writes": len(waited),
        "reads": sum(customer.reads for customer in customers),
        "stale": len(stale),
        "late": late,
        "command_ms": milliseconds([took for customer in customers for took in customer.took]),
        "waited_ms": milliseconds(waited) | {"most": round(max(waited) * 1000, 2)},
    }
    told = [f"{late} reads were not answered within {_PATIENCE:g} s"] if late else []
    return row, stale[:5] + told
