"""Events over which handlers stumble, until they are mended, and events which nobody can decode."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import psycopg

from chaos.app import app
from chaos.plan import Fault
from chaos.timeline import Timeline, last
from chaos.workload import STABLE, Change, perform
from chaos.world import World
from readside.core.errors import HandlerError, ReadsideError

#: What a program that knows nothing of our classes may write: type, version, payload.
_STRANGE = (
    ("wrote", 1, "{}"),
    ("wrote", 1, '[1, "two"]'),
    ("wrote", 1, '{"key": 7, "version": "seven", "mark": null, "bucket": {}}'),
    ("wrote", 999, '{"key": "from the future"}'),
)
#: Projections which want this event type; each has to list it.
WANT_WROTE = ("lists", "registers", "counters", "totals")


class Poisons:
    """Commits them."""

    def __init__(self, world: World, timeline: Timeline, stopping: asyncio.Event) -> None:
        self._world = world
        self._timeline = timeline
        self._stopping = stopping
        # Where commands fold, the handlers run here, too.
        os.environ["CHAOS_MENDED"] = str(world.mended)

    async def strike(self, fault: Fault) -> None:
        """Commit an event that the handlers stumble over; mend them after a while."""
        tag = f"{fault.kind.removeprefix('poison_')}-{fault.at}-{fault.dice:.6f}"
        key = STABLE[int(fault.dice * len(STABLE))]
        if self._world.setup.inline:
            await self._refused(fault, key, tag)
            return
        while not await self._commit(key, tag):
            if self._stopping.is_set():
                self._timeline.note(fault, 0, f"{key} could not be poisoned in time")
                return
            await last(0.2, self._stopping)
        self._timeline.poisons[tag] = [key, time.time(), None]
        self._timeline.note(fault, 1, f"{key} is poisoned by {tag}")
        await last(fault.duration, self._stopping)
        while not self._stopping.is_set() and not await self._parked(key):
            await last(
                0.5, self._stopping
            )  # the projectors are behind: the mend would come before the fall
        (self._world.mended / tag).touch()
        self._timeline.poisons[tag][2] = time.time()

    async def _refused(self, fault: Fault, key: str, tag: str) -> None:
        """Where commands fold, the command is refused, and nothing of it is there; after the mend it is not."""
        refused, there = False, True
        while not refused and not self._stopping.is_set():
            try:
                await self._commit(key, tag)
            except ReadsideError as error:
                refused = isinstance(error, HandlerError)
            await last(0.2, self._stopping)
        while there and not self._stopping.is_set():
            row = await self._world.ask(
                "SELECT count(*) FROM chaos.history WHERE poison = %s", [tag]
            )
            there = row is None or row[0] > 0
        self._timeline.note(fault, int(refused and not there), f"a change of {key} was refused")
        await last(fault.duration, self._stopping)
        (self._world.mended / tag).touch()
        while not await self._commit(key, tag) and not self._stopping.is_set():
            await last(0.2, self._stopping)

    async def undecodable(self, fault: Fault) -> None:
        """Write a row by hand which fits no class."""
        key = f"u-{fault.dice:.6f}"
        while not await insert_strange(self._world.dsn, key, int(fault.dice * 1e6)):
            if self._stopping.is_set():
                self._timeline.note(fault, 0, f"{key} could not be written in time")
                return
            await last(0.2, self._stopping)
        self._timeline.undecodable.append(key)
        self._timeline.note(fault, 1, f"an event of {key} fits no class")

    async def _parked(self, key: str) -> bool:
        query = "SELECT 1 FROM readside.parked_documents WHERE key = %s"
        return await self._world.ask(query, [key]) is not None

    async def _commit(self, key: str, tag: str) -> bool:
        chance = random.Random(tag)
        try:
            async with asyncio.timeout(5):
                connection: Any = await psycopg.AsyncConnection.connect(
                    self._world.dsn, connect_timeout=2
                )
                async with connection:
                    row = await (
                        await connection.execute(
                            "SELECT 1 FROM chaos.history WHERE poison = %s", [tag]
                        )
                    ).fetchone()
                    if row:
                        return True  # the answer to an earlier attempt was lost

                    await _commit_on(connection, Change({key: 2}, tag), chance)
        except (psycopg.Error, TimeoutError, OSError):
            return False
        return True


async def _commit_on(connection: Any, change: Change, chance: random.Random) -> None:
    async def execute(query: str, values: Any) -> Any:
        return await (await connection.execute(query.encode(), values)).fetchone()

    done = await perform(execute, change, "poison", chance)
    await app.record(connection, *done.events)


async def commit_change(dsn: str, change: Change, chance: random.Random) -> None:
    """Commit one change, while nothing fails."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await _commit_on(connection, change, chance)


async def insert_strange(dsn: str, key: str, number: int) -> bool:
    """Write one event into the outbox as another program might; True when it is committed.

    It is looked for first: the answer to an earlier attempt may have been lost.
    """
    kind, version, payload = _STRANGE[number % len(_STRANGE)]
    try:
        async with asyncio.timeout(5):
            connection: Any = await psycopg.AsyncConnection.connect(dsn, connect_timeout=2)
            async with connection:
                found = await connection.execute(
                    "SELECT 1 FROM readside.outbox WHERE aggregateid = %s AND app = 'chaos'", [key]
                )
                if await found.fetchone() is None:
                    await connection.execute(
                        "INSERT INTO readside.outbox"
                        " (id, app, aggregatetype, aggregateid, type, version, payload)"
                        " VALUES (gen_random_uuid(), 'chaos', %s, %s, %s, %s, %s::json)",
                        [kind, key, kind, version, payload],
                    )
    except (psycopg.Error, TimeoutError, OSError):
        return False
    return True
