"""A transaction that has written stays open beside short ones: all of these come, and then it comes too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from proofs.figures import Row, milliseconds
from proofs.outbox import RECORD, Outbox
from readside.adapters.postgres.polling import PollingSource
from readside.ports.ending import end

_GIVE_UP = 60.0


class Reader:
    """Reads all events, each of which has its own name, and notes when they came."""

    def __init__(self, source: PollingSource) -> None:
        self._source = source
        self._came = asyncio.Event()
        self.seen: dict[str, float] = {}
        self.repeated: list[str] = []

    async def read(self) -> None:
        """Go on until cancelled."""
        while True:
            chunk = await self._source.read(0.1)
            for event in chunk.events:
                name = event.payload.decode().strip('"')
                if name in self.seen:
                    self.repeated.append(name)
                self.seen[name] = time.perf_counter()
            self._came.set()
            await self._source.settle(chunk.settled)

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait until it is so, or give up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_UP):
                while not there():
                    self._came.clear()
                    await self._came.wait()


async def held(outbox: Outbox, seconds: float, short: int) -> tuple[Row, list[str]]:
    """Figures, and what is wrong about them."""
    reader = Reader(outbox.source)
    committed: dict[str, float] = {}
    reading = asyncio.create_task(reader.read())
    try:
        async with await psycopg.AsyncConnection.connect(outbox.dsn) as long:
            await long.execute(RECORD, ["long", "long"])
            began = time.perf_counter()
            await _write(outbox, committed, seconds, short)
            await reader.until(lambda: committed.keys() <= reader.seen.keys())
            before = dict(reader.seen)
            await long.commit()
            committed["long"] = time.perf_counter()
        await reader.until(lambda: "long" in reader.seen)
    finally:
        (failed,) = await end((reading,))
    if failed:
        raise failed
    return _verdict(reader, committed, before, committed["long"] - began)


def _verdict(
    reader: Reader, committed: dict[str, float], before: dict[str, float], held_s: float
) -> tuple[Row, list[str]]:
    missing = sorted(committed.keys() - reader.seen.keys())
    took = [reader.seen[name] - at for name, at in committed.items() if name in reader.seen]
    row = {
        "held_s": round(held_s, 1),
        "short": len(committed) - 1,
        "seen_meanwhile": len(before),
        "skipped": len(missing),
        "twice": len(reader.repeated),
        "commit_to_poller_ms": milliseconds(took),
    }
    complaints = {
        "skipped": missing,
        "told twice": reader.repeated,
        "told before its commit": [
            name for name in before if name not in committed or name == "long"
        ],
    }
    return row, [f"{what}: {names[:5]}" for what, names in complaints.items() if names]


async def _write(outbox: Outbox, committed: dict[str, float], seconds: float, short: int) -> None:
    began = time.perf_counter()
    for number in range(short):
        await asyncio.sleep(max(0.0, began + seconds * number / short - time.perf_counter()))
        await outbox.client.execute(RECORD, ["short", str(number)])
        committed[str(number)] = time.perf_counter()
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
