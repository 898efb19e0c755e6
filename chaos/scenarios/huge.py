"""Very many events in one transaction: every document right, and every process small.

Relay and projector are processes of their own where there is a broker. The memory of each is told
before and at its peak; it must not grow with the transaction.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import msgspec
import redis.asyncio as redis

from chaos.options import Options
from chaos.scenarios.big_writer import peak_kb
from chaos.scenarios.stage import Story, stage
from chaos.world import Cast, World

#: Documents, about one for so many events.
_EACH = 100
#: Bytes of ballast in each event.
_BALLAST = 200
#: Megabytes that relay and projector may grow by, whatever the size of the transaction.
_BOUND_MB = 96
#: Events a second at least, as patience with a slow machine.
_SLOWEST = 500


async def play(options: Options) -> int:
    """Write, ship, apply; 0 if all documents are right and the memory of the services is bounded."""
    story = Story(options)
    count = int(options.amount)
    size = int(options.ballast or _BALLAST)
    nodes = (("relay", "relay"), ("projector", "projector"))
    if options.broker == "direct":
        nodes = (("one", "all"),)
    cast = Cast(nodes, writers=0, observers=0, app="chaos.scenarios.accounts:app")
    async with stage(options, cast, story) as world:
        await asyncio.sleep(3)
        idle = {node.name: peak_kb(node.child.pid) for node in world.nodes}
        accounts = max(1, count // _EACH)
        began = time.monotonic()
        writer = await _write(world, count, accounts, size)
        story.tell(f"{count} events are committed after {writer['seconds']} s")
        wrong = await _applied(world, count, accounts, story)
        story.note(
            events=count,
            ballast_bytes=size,
            documents=accounts,
            applied_after_s=round(time.monotonic() - began, 1),
            writer_mb={"idle": writer["idle_kb"] // 1024, "peak": writer["peak_kb"] // 1024},
        )
        story.expect(not wrong, f"{len(wrong)} documents are wrong: {wrong[:3]}")
        _weigh(world, idle, story)
        for child in world.children():
            story.expect(not child.unexpected, f"{child.name} ended: {child.unexpected}")
    story.end()
    return story.code


def _weigh(world: World, idle: dict[str, int], story: Story) -> None:
    peaks = {node.name: peak_kb(node.child.pid) for node in world.nodes}
    story.note(
        services_mb={
            name: {"idle": idle[name] // 1024, "peak": peak // 1024} for name, peak in peaks.items()
        }
    )
    for name, peak in peaks.items():
        grown = (peak - idle[name]) // 1024
        story.expect(grown <= _BOUND_MB, f"{name} grew by {grown} MB, not by {_BOUND_MB} at most")


async def _write(world: World, count: int, accounts: int, size: int) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos.scenarios.big_writer", str(count), str(accounts), str(size),
        env=world.environment(), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the writer failed")
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


async def _applied(world: World, count: int, accounts: int, story: Story) -> list[str]:
    """Wait until everything is applied; the documents that are wrong then."""
    url = world.servers.address("valkey")
    patience = 120 + count / _SLOWEST
    began = time.monotonic()
    looked_at = 0.0
    async with redis.Redis.from_url(url) as client:
        while True:
            found = await _documents(client, accounts)
            applied = sum(one["count"] for one in found if one)
            if applied >= count or time.monotonic() - began > patience:
                return _wrong(found, count, accounts)
            if time.monotonic() - looked_at > 10:
                looked_at = time.monotonic()
                story.tell(f"{applied} events are applied")
            await asyncio.sleep(1)


async def _documents(client: redis.Redis, accounts: int) -> list[dict[str, int] | None]:
    found: list[dict[str, int] | None] = []
    for start in range(0, accounts, 5000):
        names = [f"accounts:a-{n}" for n in range(start, min(accounts, start + 5000))]
        found += [one and msgspec.json.decode(one) for one in await client.mget(names)]
    return found


def _wrong(found: list[dict[str, int] | None], count: int, accounts: int) -> list[str]:
    """Compare with a fold of our own."""
    counts, totals = [0] * accounts, [0] * accounts
    for number in range(count):
        counts[number % accounts] += 1
        totals[number % accounts] += number % 997
    return [
        f"a-{number}: {document}"
        for number, document in enumerate(found)
        if document != {"count": counts[number], "total": totals[number], "in_order": True}
    ]
