"""Every document against what it has to be, through the read store's own client."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from redis.asyncio import Redis

from readside.apps.bench.backlog import Ground
from readside.apps.bench.plan import Backlog
from readside.apps.bench.subject import UserSaved, saved

_AT_ONCE = 1000


async def check(ground: Ground) -> int:
    """Compare all documents of all projections; return how many are missing, wrong or too many."""
    client: Redis = Redis.from_url(ground.places.read_store)
    wrong = 0
    try:
        for name in ground.description("").names:
            wrong += await _compare(client, ground, name)
    finally:
        await client.aclose()
    return wrong


async def _compare(client: Redis, ground: Ground, projection: str) -> int:
    wrong = 0
    chunk: list[UserSaved] = []
    for event in last(ground.shape):
        chunk.append(event)
        if len(chunk) == _AT_ONCE:
            wrong += await _differences(client, projection, chunk)
            chunk = []
    return wrong + (await _differences(client, projection, chunk) if chunk else 0)


async def _differences(client: Redis, projection: str, events: list[UserSaved]) -> int:
    found = await client.mget([f"{projection}:{event.id}" for event in events])
    return sum(
        document is None or msgspec.json.decode(document) != msgspec.to_builtins(event)
        for document, event in zip(found, events, strict=True)
    )


def last(shape: Backlog) -> Iterator[UserSaved]:
    """The newest event of every document."""
    for number in range(max(0, shape.events - shape.documents), shape.events):
        yield saved(number, shape.documents, shape.payload)
