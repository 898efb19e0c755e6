"""A writer process: ``python -m chaos.writer NAME RATE SEED JOURNAL``, until SIGTERM.

Commits through ``app.transaction()``, through ``app.record`` on a psycopg connection of its own
(asynchronous and plain), rolls back, lets commits fail, and reads its own writes.
Whether a transaction whose answer was lost has committed is the oracle's business, not its.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from chaos.app import MODE, app, counters, lists, registers
from chaos.journal import Journal, fingerprint
from chaos.workload import STABLE, Done, large, perform, small
from readside.core.errors import HistoryLostError, ReadsideError, StaleReadError

_LARGE = 2000
_PATIENCE = 20.0


class RolledBackError(Exception):
    """On purpose."""


class Writer:
    """Several concurrent users of one application process."""

    def __init__(self, name: str, rate: float, seed: int, journal: Journal) -> None:
        self._name = name
        self._pause = 4 / rate
        # One that starts again must not say the same once more, or an event is not known by its mark.
        self._chance = random.Random(f"{seed} after {journal.size}")
        self._journal = journal
        self._dsn = app.settings.write_store
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Write until asked to stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        users = (self._through_app, self._through_app, self._own_connection, self._plain_connection)
        async with asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(self._user(user))
        await app.close()

    async def _user(self, act: Any) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(_PATIENCE):
                    await act()
            except RolledBackError:
                self._journal.note("rolled back")
            except psycopg.errors.UniqueViolation:
                self._journal.note("commit failed")
            except (psycopg.Error, ReadsideError, OSError, TimeoutError) as error:
                self._journal.note("error", type(error).__name__, str(error)[:200])
                await asyncio.sleep(0.1)
            await asyncio.sleep(self._pause * self._chance.uniform(0.3, 1.7))

    def _change(self) -> Any:
        if self._chance.random() < 0.01:
            return large(self._chance, _LARGE)
        return small(self._chance)

    async def _through_app(self) -> None:
        async with app.transaction() as tx:

            async def execute(query: str, values: Sequence[Any]) -> Any:
                return await tx.fetchone(query, *values)

            done = await perform(execute, self._change(), self._name, self._chance)
            tx.record(*done.events)
            await self._spoil(execute)
        self._journal.note("committed", len(done.events))
        if self._chance.random() < 0.7:
            await self._read_own(done, tx)

    async def _spoil(self, execute: Any) -> None:
        """Now and then let the transaction fail, at once or only at its commit."""
        dice = self._chance.random()
        if dice < 0.04:
            raise RolledBackError
        if dice < 0.08:
            await execute("INSERT INTO chaos.obstacle VALUES (%s) RETURNING id", [1])

    async def _own_connection(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._dsn, connect_timeout=5
        ) as connection:

            async def execute(query: str, values: Sequence[Any]) -> Any:
                return await (await connection.execute(query.encode(), values)).fetchone()

            done = await perform(execute, self._change(), self._name, self._chance)
            await app.record(connection, *done.events)
            await self._spoil(execute)
        self._journal.note("committed", len(done.events))

    async def _plain_connection(self) -> None:
        """A synchronous psycopg connection in a thread, as a Django or Flask handler has."""
        await asyncio.to_thread(lambda: asyncio.run(self._plain()))

    async def _plain(self) -> None:
        with psycopg.Connection.connect(self._dsn, connect_timeout=5) as connection:
            connection.execute("SET statement_timeout = '15s'")

            async def execute(query: str, values: Sequence[Any]) -> Any:
                return connection.execute(query.encode(), values).fetchone()

            done = await perform(execute, small(self._chance), self._name, self._chance)
            app.record(connection, *done.events)
            await self._spoil(execute)
        self._journal.note("committed", len(done.events))

    async def _read_own(self, done: Done, tx: Any) -> None:
        keys = [key for key in done.versions if key in STABLE or key.startswith("e-")]
        if not keys:
            return
        projection: Any = self._chance.choice((lists, registers, counters))
        # The block has waited, and says for whom in vain.
        waited = MODE == "wait"
        if waited and projection.name in tx.late:
            self._journal.note("refused", projection.name, "late")
            return
        token = None if waited else tx.token
        try:
            found = await projection.get_many(keys, after=token, timeout=2.0)
        except (StaleReadError, HistoryLostError) as error:
            self._journal.note("refused", projection.name, type(error).__name__)
            return
        except ReadsideError as error:
            self._journal.note("refused", projection.name, type(error).__name__, str(error)[:100])
            return
        for key, view in zip(keys, found, strict=True):
            seen = None if view is None else msgspec.json.encode(view)
            self._journal.note(
                "read", projection.name, key, done.versions[key], fingerprint(seen), str(token)
            )


def main() -> None:
    """Run one writer."""
    name, rate, seed, path = sys.argv[1:]
    asyncio.run(Writer(name, float(rate), int(seed), Journal(Path(path))).run())


if __name__ == "__main__":
    main()
