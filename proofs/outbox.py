"""An outbox that is captured by polling: somebody who writes, and the poller."""

from __future__ import annotations

from typing import Any

import psycopg

from readside.adapters.postgres.polling import PollingSource

APP = "proof"
RECORD = "SELECT readside.record('proof', 'thing.done', %s, to_json(%s::text))"


class Outbox:
    """A database of its own."""

    def __init__(self, dsn: str, client: psycopg.AsyncConnection[Any]) -> None:
        self.dsn, self.client = dsn, client
        self.source = PollingSource(dsn, APP, 1)

    async def ask(self, query: str, *values: object) -> Any:
        """The first column of the first row."""
        row = await (await self.client.execute(query.encode(), values or None)).fetchone()
        return row[0] if row else None

    async def take(self, count: int) -> int:
        """Read so many events, and settle them; how many there were."""
        found = 0
        while found < count:
            chunk = await self.source.read(1.0)
            found += len(chunk.events)
            await self.source.settle(chunk.settled)
        return found

    async def quiet(self) -> None:
        """Read on until the newest tick is past everything."""
        while (await self.source.read(0.2)).events:
            pass
