"""An app with a plain view, and one whose view is its whole history."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import readside


class Created(readside.Event, key="id", type="thing.created"):
    id: str
    name: str


class Renamed(readside.Event, key="id", type="thing.renamed"):
    id: str
    name: str


class Deleted(readside.Event, key="id", type="thing.deleted"):
    id: str


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class Thing(readside.View):
    id: str
    name: str


class History(readside.View):
    numbers: list[int]


class World:
    """An app with a plain view, and one whose view is its whole history."""

    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.things = app.projection(f"{app.name}-thing", Thing)
        self.histories = app.projection(f"{app.name}-history", History)

        @self.things.on
        def created(event: Created) -> Thing:
            return Thing(event.id, event.name)

        @self.things.on
        def renamed(event: Renamed, thing: Thing | None) -> Thing | None:
            return thing and msgspec.structs.replace(thing, name=event.name)

        @self.things.on(Deleted)
        def deleted(event: Deleted) -> None:
            return None

        @self.histories.on(Counted)
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, *events: readside.Event) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*events)
        return tx.token


@pytest.fixture
async def world(make_app: Any, broker_url: str, store_url: str) -> Any:
    # Every pair of capture, broker and store, in half as many tests as every three of them.
    odd = broker_url.startswith("direct") != store_url.startswith("postgresql")
    app = make_app(broker_url, read_store=store_url, capture="polling" if odd else "replication")
    world = World(app)
    await (await app.runtime()).install()
    yield world
    await app.close()
