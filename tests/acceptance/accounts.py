"""An app of accounts, which are kept inline and also follow the log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import readside


class Opened(readside.Event, key="id"):
    id: int
    owner: str


class Paid(readside.Event, key="id"):
    id: int
    amount: int
    to: list[int] = []  # noqa: RUF012 - msgspec copies it


class Closed(readside.Event, key="id"):
    id: int


class Account(readside.View):
    id: int
    owner: str
    balance: int = 0


class Seen(readside.View):
    events: list[int]


class World:
    """An inline projection beside one which follows the log, with the same handlers."""

    def __init__(self, app: readside.App) -> None:
        self.app = app
        table = readside.Table(key="id", constraints=("CHECK (balance >= -100)",))
        self.inline = app.projection("account", Account, mode="inline", table=table)
        self.later = app.projection(f"{app.name}-account", Account)
        for projection in (self.inline, self.later):
            self._declare(projection)

    def _declare(self, projection: Any) -> None:
        @projection.on
        def opened(event: Opened) -> Account:
            return Account(event.id, event.owner)

        @projection.on(Paid, key=lambda event: [event.id, *event.to])
        def paid(event: Paid, account: Account | None) -> Account | None:
            if event.amount == 13:
                raise ZeroDivisionError("unlucky")
            return account and msgspec.structs.replace(
                account, balance=account.balance + event.amount
            )

        @projection.on(Closed)
        def closed(event: Closed) -> None:
            return None

    async def write(self, *events: readside.Event) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*events)
        return tx.token

    async def ask(self, query: str) -> list[Any]:
        async with self.app.transaction() as tx:
            return await tx.fetchall(query)


@pytest.fixture
async def world(make_app: Any, servers: Any) -> Any:
    world = World(make_app(servers.broker))
    await (await world.app.runtime()).install()
    yield world
    await world.app.close()
