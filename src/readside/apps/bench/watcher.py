"""Sees when each event can be read, by looking at the projection's checkpoints: one small command a look."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import redis

from readside.core.record import Checkpoint


class Sight(NamedTuple):
    """How many records of each partition could be read at a moment."""

    seen_at: float
    applied: dict[int, int]


class Watcher:
    """Looks again and again in a thread of its own, and keeps what is new.

    It does not interpret what it sees before the traffic is over, so a look costs the read store
    one HGETALL of a few fields and this process some 50 microseconds.
    """

    def __init__(self, url: str, app: str, projection: str, every: float) -> None:
        self._name = f"readside:{app}:{projection}:checkpoints"
        self._client = redis.Redis.from_url(url, protocol=2)
        self._every = every
        self._seen: list[tuple[float, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watcher", daemon=True)

    def _look(self) -> None:
        # The connection itself: a look is one write and one read, without the client's bookkeeping.
        connection: Any = self._client.connection_pool.get_connection()
        question = connection.pack_command("HGETALL", self._name)
        before: Any = None
        try:
            last = False
            while not last:
                last = self._stop.is_set()  # one look more: whoever stops us has seen the end
                connection.send_packed_command(question)
                answer = connection.read_response()
                if answer != before:
                    self._seen.append((time.time(), answer))
                    before = answer
                time.sleep(self._every)
        finally:
            self._client.connection_pool.release(connection)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def sights(self) -> list[Sight]:
        """Everything that was seen, in order."""
        return [Sight(at, dict(_pairs(answer))) for at, answer in self._seen if answer]


def _pairs(answer: list[bytes]) -> list[tuple[int, int]]:
    fields, texts = answer[::2], answer[1::2]
    return [
        (int(field), Checkpoint.decode(text.decode()).nth)
        for field, text in zip(fields, texts, strict=True)
    ]


def readable_at(sights: Sequence[Sight], partition: int, count: int) -> list[float]:
    """For each record of a partition, in order, the first moment at which it was seen."""
    times = [sight.seen_at for sight in sights]
    heights = [sight.applied.get(partition, 0) for sight in sights]
    return [times[bisect_left(heights, nth)] for nth in range(1, count + 1)]
