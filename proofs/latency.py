"""How long it takes: from a commit to when somebody who only looks can read it, and the command itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from proofs.figures import Row, milliseconds
from proofs.service import service
from proofs.ways import Place

RATE = 200
_WRITERS = 8
#: Seconds between two looks; half of it is part of the figures.
_LOOK_EVERY = 0.001
_GIVE_UP = 60.0


async def latency(place: Place, seconds: float) -> tuple[Row, list[str]]:
    """Create users at a steady rate; figures, and what is wrong about them."""
    count = int(RATE * seconds)
    async with service(place):
        token = await place.commands.create_user("first", "First")
        await place.shop.users.get("first", after=token, timeout=_GIVE_UP)
        await _readable(place, "warm-up", RATE)
        took, seen = await _readable(place, "user", count)
        plain = await _paced(count, lambda number: _plain(place, number))
    row = {
        "way": str(place.way),
        "rate": RATE,
        "readable_ms": milliseconds(seen or [0.0]),
        "command_ms": milliseconds(took),
        "plain_ms": milliseconds(plain),
    }
    missing = count - len(seen)
    return row, [f"{missing} users never became readable"] if missing else []


async def _readable(place: Place, prefix: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds that each command took, and that each user then took to be readable."""
    under_way: dict[str, float] = {}
    seen: list[float] = []

    async def create(number: int) -> None:
        handle = f"{prefix} {number}"
        await place.commands.create_user(handle, handle)
        under_way[handle] = time.perf_counter()

    looking = asyncio.create_task(_look(place, under_way, seen, count))
    took = await _paced(count, create)
    await looking
    return took, seen


async def _look(place: Place, under_way: dict[str, float], seen: list[float], count: int) -> None:
    moved_at = time.perf_counter()
    while len(seen) < count and time.perf_counter() - moved_at < _GIVE_UP:
        handles = list(under_way)
        views = await place.shop.users.get_many(handles)
        now = time.perf_counter()
        for handle, view in zip(handles, views, strict=True):
            if view is not None:
                seen.append(now - under_way.pop(handle))
                moved_at = now
        await asyncio.sleep(_LOOK_EVERY)


async def _plain(place: Place, number: int) -> None:
    """The same row, without an event."""
    async with place.shop.app.transaction() as tx:
        await tx.execute(
            "INSERT INTO users (handle, name) VALUES (%s, %s)", f"plain {number}", "Plain"
        )


async def _paced(count: int, act: Callable[[int], Awaitable[None]]) -> list[float]:
    """Do it so often, at the rate; seconds that each took."""
    began = time.perf_counter()
    numbers = iter(range(count))
    took: list[float] = []

    async def write() -> None:
        for number in numbers:
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            at = time.perf_counter()
            await act(number)
            took.append(time.perf_counter() - at)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_WRITERS):
            tasks.create_task(write())
    return took
