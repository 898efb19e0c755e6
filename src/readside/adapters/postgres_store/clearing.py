"""Ends what keeps a batch waiting: the transaction of a worker that is frozen, cut off or gone.

Such a transaction holds the row of the checkpoint, so nobody could take the partition over until the
server notices, after hours or, where the process is only frozen, never. To end its session is always
safe: it takes back what was not committed, and its worker, if it still works, tries again and is fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from readside.adapters.postgres.connection import Connection, opened
from readside.core.errors import ReadsideError

log = logging.getLogger("readside.postgres")

#: Seconds that a batch waits, and that its holder has been waiting for its own client.
_LONG = 3.0
#: `clock_timestamp() - state_change` is how long it has been idle, or since its last statement began: in a
#: pipeline it counts as active all the time.
_END = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = ANY (pg_blocking_pids(%s)) AND application_name = 'readside store'"
    " AND wait_event = 'ClientRead' AND xact_start IS NOT NULL"
    " AND clock_timestamp() - greatest(state_change, query_start) > make_interval(secs => %s)"
)


@asynccontextmanager
async def clearing(connection: Connection, dsn: str) -> AsyncIterator[None]:
    """Let nobody who does not work hold up what is done on this connection meanwhile."""
    tasks: list[asyncio.Task[None]] = []

    def begin() -> None:
        tasks.append(asyncio.create_task(_clear(connection.info.backend_pid, dsn)))

    timer = asyncio.get_running_loop().call_later(_LONG, begin)
    try:
        yield
    finally:
        timer.cancel()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)


async def _clear(waiting: int, dsn: str) -> None:
    while True:
        # On a connection of its own: those of the pool may all be waiting.
        try:
            async with opened(dsn, "store's warden") as connection:
                found = await connection.execute(_END, [waiting, _LONG])
                ended = [pid for pid, gone in await found.fetchall() if gone]
        except ReadsideError as error:
            log.warning("what holds up a batch cannot be ended: %s", error)
        else:
            for pid in ended:
                log.warning(
                    "ended session %d of the read store: its worker is silent, and others waited",
                    pid,
                )
        await asyncio.sleep(_LONG / 3)
