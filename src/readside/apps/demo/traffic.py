"""Creates users at a steady rate, and sees when each can be read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from readside.apps.demo.shop import Shop

_WRITERS = 8
#: Seconds between two looks of the observer.
_LOOK_EVERY = 0.001
#: Seconds after the last progress at which the observer gives up.
_GIVE_UP = 30.0


class Traffic:
    """Users under way: when each was committed, and how long it took to be readable."""

    def __init__(self, shop: Shop, users: int, rate: int) -> None:
        self._shop = shop
        self._users = users
        self._rate = rate
        self._under_way: dict[int, float] = {}
        #: Seconds from commit to readable.
        self.latencies: list[float] = []
        self.committed = 0
        self.seconds = 0.0

    async def run(self, tell: Callable[[Traffic, bool], None]) -> None:
        """Create all users, and return when the last is readable or nothing moves any more."""
        began = time.perf_counter()
        numbers = iter(range(self._users))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._observe(tell))
                for _ in range(_WRITERS):
                    tasks.create_task(self._write(numbers, began))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # one reason is what a person can act on
        finally:
            self.seconds = time.perf_counter() - began

    async def _write(self, numbers: object, began: float) -> None:
        for number in numbers:  # type: ignore[attr-defined]  # an iterator shared by all writers
            pause = began + number / self._rate - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            id_, _ = await self._shop.create_user(f"User {number}", f"user{number}@example.org")
            self._under_way[id_] = time.perf_counter()
            self.committed += 1

    async def _observe(self, tell: Callable[[Traffic, bool], None]) -> None:
        moved_at = told_at = time.perf_counter()
        while len(self.latencies) < self._users:
            ids = list(self._under_way)[:500]
            views = await self._shop.users.get_many(ids)
            now = time.perf_counter()
            for id_, view in zip(ids, views, strict=True):
                if view is not None:
                    self.latencies.append(now - self._under_way.pop(id_))
                    moved_at = now
            if now - told_at > 0.25:  # noqa: PLR2004 - four times a second
                tell(self, False)
                told_at = now
            if now - moved_at > _GIVE_UP:
                break
            await asyncio.sleep(_LOOK_EVERY)
        tell(self, True)

    def line(self) -> str:
        """How far it is, in one line."""
        return (
            f"  committed {self.committed}/{self._users}   readable {len(self.latencies)}"
            f"   p50 {self.percentile(0.5):.1f} ms   p99 {self.percentile(0.99):.1f} ms"
        )

    def percentile(self, share: float) -> float:
        """Milliseconds below which this share of the latencies lies; 0 without any."""
        ordered = sorted(self.latencies)
        if not ordered:
            return 0.0
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)
