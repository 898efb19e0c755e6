"""From commit to readable, at fixed rates."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import NamedTuple

import msgspec

from readside.apps.bench.backlog import Ground, Tell
from readside.apps.bench.drain import begin
from readside.apps.bench.figures import percentiles
from readside.apps.bench.plan import transactions
from readside.apps.bench.processes import Started, started
from readside.apps.bench.watcher import Watcher, readable_at
from readside.apps.bench.writers import Paced, Rate
from readside.core import pgoutput
from readside.core.errors import UnavailableError
from readside.core.partition import partition_of
from readside.wiring import store_for

#: Seconds of traffic before the measurement.
_WARM_UP = 1.0
#: Seconds between two looks of the watcher; its own work shall not be felt at high rates.
_LOOK_EVERY = 0.0005
_LOOK_SELDOM = 0.001
_GIVE_UP = 60.0
#: A rate counts as held from this share of it.
_HELD = 0.95


class Latency(NamedTuple):
    """Milliseconds from commit to readable at one rate."""

    rate: int
    events_per_transaction: int
    #: Events a second from the first commit to the last document.
    achieved: float
    milliseconds: dict[str, float]
    #: How late the writers were; what is measured begins at the commit all the same.
    writers_late_ms_p99: float

    @property
    def held(self) -> bool:
        """Whether the whole pipeline kept the rate."""
        return self.achieved >= _HELD * self.rate


async def latency(ground: Ground, broker: str, rate: int, seconds: float, tell: Tell) -> Latency:
    """Write at a rate, and see when each event can be read.

    The commit's time is PostgreSQL's own, taken before the commit is flushed to disk; so the flush
    is part of what is measured. The schedule of the writers waits for nobody: what is slow is
    not hidden by what was therefore not sent.
    """
    _, each = transactions(rate)
    await ground.rewind()
    ground.describe(broker)
    job = _job(ground, rate, seconds)
    events = job.transactions * each
    (projection,) = ground.description("").names
    every = _LOOK_EVERY if each == 1 else _LOOK_SELDOM
    async with AsyncExitStack() as stack:
        processes = await begin(stack, ground, broker)
        await processes[-1].until("streams from")
        with Watcher(ground.places.read_store, ground.name, projection, every) as watcher:
            paced = await _write(ground, job)
            await _until_applied(ground, projection, events, processes, tell)
    commits = await _commits(ground)
    return _summary(ground, watcher, commits, rate, each, paced)


async def stages(ground: Ground, broker: str, rate: int, seconds: float) -> dict[str, float]:
    """Milliseconds that the median event spends in each stage, at a rate.

    In a run of its own, in which relay and projector share one process with a stopwatch.
    """
    await ground.rewind()
    ground.describe(broker)
    arguments = ["readside.apps.bench.timed", str(seconds)]
    async with started("stopwatch", ground.places.directory, arguments) as process:
        await process.until("streams from")
        # More than is measured: the stopwatch ends while traffic is still under way.
        await _write(ground, _job(ground, rate, seconds + _WARM_UP))
        return msgspec.json.decode(await process.result(), type=dict[str, float])


def _job(ground: Ground, rate: int, seconds: float) -> Rate:
    each_second, each = transactions(rate)
    return Rate(each_second, each, int(each_second * (seconds + _WARM_UP)), ground.shape.documents)


async def _write(ground: Ground, job: Rate) -> Paced:
    arguments = ["readside.apps.bench.writers", msgspec.json.encode(job).decode()]
    async with started("writers", ground.places.directory, arguments) as writers:
        return msgspec.json.decode(await writers.result(), type=Paced)


async def _until_applied(
    ground: Ground, projection: str, events: int, processes: list[Started], tell: Tell
) -> None:
    store = store_for(ground.places.read_store)
    moved_at, before = time.perf_counter(), 0
    try:
        await store.open(ground.name)
        while True:
            found = await store.checkpoints(projection, range(ground.shape.partitions))
            applied = sum(checkpoint.nth for checkpoint in found.values())
            if applied >= events:
                return
            if applied != before:
                moved_at, before = time.perf_counter(), applied
            if time.perf_counter() - moved_at > _GIVE_UP:
                raise UnavailableError(f"{applied} of {events} events can be read, and no more.")
            for process in processes:
                process.check()
            tell(f"written, and {applied:,} of {events:,} can be read")
            await asyncio.sleep(0.02)
    finally:
        await store.close()


async def _commits(ground: Ground) -> dict[int, list[float]]:
    """When the events of each partition were committed, in commit order, from PostgreSQL's log."""
    found: dict[int, list[float]] = defaultdict(list)
    async with ground.copied() as slot:
        cursor = await ground.connection.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '2', 'publication_names', %s)",
            [slot, ground.names.publication],
        )
        at, key_at = 0.0, 0
        async for (data,) in cursor:
            message = pgoutput.decode(bytes(data))
            if isinstance(message, pgoutput.Begin):
                at = message.committed_at / 1e6
            elif isinstance(message, pgoutput.Relation):
                key_at = message.columns.index("aggregateid")
            elif isinstance(message, pgoutput.Insert):
                key = message.values[key_at]
                if isinstance(key, bytes):
                    found[partition_of(key.decode(), ground.shape.partitions)].append(at)
    return found


def _summary(
    ground: Ground,
    watcher: Watcher,
    commits: dict[int, list[float]],
    rate: int,
    each: int,
    paced: Paced,
) -> Latency:
    sights = watcher.sights()
    first = min(times[0] for times in commits.values())
    last = first
    took: list[float] = []
    for partition in range(ground.shape.partitions):
        times = commits.get(partition, [])
        seen = readable_at(sights, partition, len(times))
        last = max([last, *seen[-1:]])
        took += [
            there - at for at, there in zip(times, seen, strict=True) if at >= first + _WARM_UP
        ]
    events = sum(map(len, commits.values()))
    achieved = events / (last - first)
    return Latency(rate, each, round(achieved, 1), percentiles(took, 1000), paced.late_ms_p99)
