"""An app whose events are messages of the log, and whose view is its whole history."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest

import readside
from readside.core.message import pack, prefix_of

EMIT = "SELECT pg_logical_emit_message(true, %s, %b::bytea)"


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


class World:
    """An app whose view is its whole history."""

    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.histories = app.projection(f"{app.name}-history", History)

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, *events: Counted) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*events)
        return readside.Token(tx.token.position, tuple(range(8)))

    async def emit(self, *contents: bytes, prefix: str = "") -> None:
        """As anybody may in this database."""
        async with self.app.transaction() as tx:
            for content in contents:
                await tx.execute(EMIT, prefix or prefix_of(self.app.name), content)

    async def numbers(self, key: str, token: readside.Token) -> list[int]:
        view = await self.histories.get(key, after=token, timeout=60)
        return view.numbers if view else []


@pytest.fixture
async def world(make_app: Any, broker_url: str) -> Any:
    world = World(make_app(broker_url, outbox="message"))
    await (await world.app.runtime()).install()
    yield world
    await world.app.close()


def content(key: str, number: int, **changes: Any) -> bytes:
    found = {
        "id": str(uuid4()),
        "type": "thing.counted",
        "key": key,
        "version": 1,
        "payload": msgspec.json.encode({"id": key, "number": number}),
        "headers": b"null",
    } | changes
    return pack(*found.values())
