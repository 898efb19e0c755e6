"""Drains a backlog through readside: relay and projector as processes of their own, as users run them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import NamedTuple

from readside.apps.bench.backlog import Ground, Tell
from readside.apps.bench.check import check
from readside.apps.bench.processes import Cost, Started, cost, run, started
from readside.core.errors import UnavailableError
from readside.ports.store import Store
from readside.wiring import store_for

#: Seconds between two looks at the checkpoints: one small command each.
_LOOK_EVERY = 0.01
#: Seconds without any progress after which a drain has failed.
_GIVE_UP = 60.0


class Drained(NamedTuple):
    """One drain."""

    events_per_second: float
    #: Seconds from the start of the process until it streams.
    startup_seconds: float
    #: What each process has used, by name.
    costs: dict[str, Cost]
    #: Documents that are missing or wrong.
    wrong: int


async def drain(ground: Ground, broker: str, tell: Tell) -> Drained:
    """Drain the whole backlog, then check every document."""
    await ground.rewind()
    ground.describe(broker)
    store = store_for(ground.places.read_store)
    servers = ground.places.servers
    try:
        await store.open(ground.name)
        async with AsyncExitStack() as stack:
            processes = await begin(stack, ground, broker)
            relay = processes[-1]
            began = await relay.until("streams from")
            before = _costs(processes, servers)
            ended = await _until_all_is_applied(ground, store, processes, tell)
            costs = _between(before, _costs(processes, servers))
        wrong = await check(ground)
    finally:
        await store.close()
    speed = ground.shape.events / (ended - began)
    return Drained(speed, began - relay.started_at, costs, wrong)


async def begin(stack: AsyncExitStack, ground: Ground, broker: str) -> list[Started]:
    """Start the processes; the one with the relay is the last, and the others are ready."""
    directory = ground.places.directory
    if broker.startswith("direct:"):
        return [await stack.enter_async_context(started("direct", directory, run("all")))]
    projector = await stack.enter_async_context(started("projector", directory, run("projector")))
    await projector.until("runs as")
    await _until_it_has_all_partitions(ground, projector)
    return [
        projector,
        await stack.enter_async_context(started("relay", directory, run("relay"))),
    ]


async def _until_it_has_all_partitions(ground: Ground, projector: Started) -> None:
    wanted = ground.shape.partitions * ground.shape.projections
    while True:
        cursor = await ground.connection.execute(
            "SELECT count(*) FROM readside.leases WHERE app = %s AND owner IS NOT NULL",
            [ground.name],
        )
        if await cursor.fetchone() == (wanted,):
            return
        projector.check()
        await asyncio.sleep(0.02)


async def _until_all_is_applied(
    ground: Ground, store: Store, processes: list[Started], tell: Tell
) -> float:
    shape = ground.shape
    waiting = list(ground.description("").names)
    seen = moved_at = told_at = 0.0
    while True:
        found = await store.checkpoints(waiting[0], range(shape.partitions))
        now = time.perf_counter()
        applied = sum(checkpoint.nth for checkpoint in found.values())
        if applied == shape.events:
            waiting.pop(0)
            if not waiting:
                return now
            continue
        if applied > shape.events:
            raise UnavailableError(f"{applied} events were applied, of {shape.events}.")
        if applied != seen or not moved_at:
            seen, moved_at = applied, now
        if now - moved_at > _GIVE_UP:
            raise UnavailableError(f"Nothing has moved for {_GIVE_UP:.0f} s, at {applied} events.")
        if now - told_at > 0.5:  # noqa: PLR2004 - twice a second
            told_at = now
            tell(f"{applied:,} of {shape.events:,} events")
            for process in processes:
                process.check()
        await asyncio.sleep(_LOOK_EVERY)


def _costs(processes: list[Started], servers: dict[str, int]) -> dict[str, Cost]:
    own = {process.name: cost(process.pid) for process in processes}
    return own | {name: cost(pid, family=True) for name, pid in servers.items()}


def _between(before: dict[str, Cost], after: dict[str, Cost]) -> dict[str, Cost]:
    """What was used while the clock ran; the peak counts from the start of the process."""
    return {name: later.since(before[name]) for name, later in after.items()}
