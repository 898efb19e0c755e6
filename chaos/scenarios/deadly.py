"""A handler which ends the process, or never ends, and events which nobody can decode.

A supervisor starts the processes again. The deadly event is found out and parked, everything else
flows meanwhile and after, and when the handler is mended a retry brings the document up to date.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from chaos.ending import catch_up, end_observers, end_writers, sightings
from chaos.final import compare
from chaos.options import Options
from chaos.oracle import read_oracle
from chaos.parked import listed
from chaos.poisons import WANT_WROTE, commit_change, insert_strange
from chaos.scenarios.stage import Story, crew, readside, stage, until
from chaos.verdicts import KINDS
from chaos.workload import STABLE, Change
from chaos.world import Cast, World

_PATIENCE = 240.0
_WARM = 4.0
#: What a process ends with.
_CODES = {"exit": 9, "hang": 70}
_KEY = STABLE[0]
_STRANGE = tuple(f"u-{number}" for number in range(4))


async def play(options: Options) -> int:
    """Poison, wait until it is parked, mend, retry; 0 if all documents are right then."""
    story = Story(options)
    environment = {"READSIDE_STALL_SECONDS": "3", "READSIDE_LEASE_SECONDS": "2"}
    async with stage(options, Cast(crew(options), environment=environment), story) as world:
        tending = asyncio.create_task(_supervise(world))
        try:
            await asyncio.sleep(_WARM)
            await _poison(world, options, story)
            await end_writers(world)
            await _everything_else(world, story)
            await _mend(world, options, story)
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
        code = _CODES[options.way]
        deaths = {node.name: node.child.unexpected for node in world.nodes}
        story.note(way=options.way, deaths=sum(map(len, deaths.values())))
        story.expect(
            all(one == code for codes in deaths.values() for one in codes),
            f"processes ended otherwise than with {code}: {deaths}",
        )
    story.end()
    return story.code


async def _supervise(world: World) -> None:
    while True:
        world.tend()
        await asyncio.sleep(0.3)


async def _poison(world: World, options: Options, story: Story) -> None:
    for number, key in enumerate(_STRANGE):
        if not await insert_strange(world.dsn, key, number):
            raise RuntimeError("a row could not be written by hand")
    tag = f"{options.way}-{options.seed}"
    await commit_change(world.dsn, Change({_KEY: 2}, tag), random.Random(tag))
    story.tell(f"{_KEY} has a deadly event, {len(_STRANGE)} keys one that fits no class")
    wanted = {("lists", _KEY), *((name, key) for name in WANT_WROTE for key in _STRANGE)}
    found: dict[tuple[str, str], Any] = {}

    async def parked() -> bool:
        documents = await listed(world.environment())
        found.update({(one["projection"], one["key"]): one for one in documents})
        return {(one["projection"], one["key"]) for one in documents} >= wanted

    after = await until(parked, _PATIENCE)
    story.note(parked_and_listed_after_s=after)
    missing = sorted(wanted - found.keys())
    story.expect(after is not None, f"not listed as parked: {missing}")
    extra = sorted(found.keys() - wanted)
    story.expect(not extra, f"parked without need: {extra}")
    if not missing:
        error = found["lists", _KEY]["error"]
        story.expect("processes died or hung" in error, f"the reason says nothing: {error[:200]}")


async def _everything_else(world: World, story: Story) -> None:
    """All documents but the parked one are right before anything is mended."""
    oracle = read_oracle(world.dsn)
    url = world.servers.address("valkey")
    wrong: list[str] = []

    async def right() -> bool:
        found = await asyncio.to_thread(compare, url, oracle)
        wrong[:] = [one for one in found.examples if f"lists:{_KEY} " not in one]
        return not wrong

    after = await until(right, _PATIENCE)
    story.expect(after is not None, f"beside the parked document: {wrong[:5]}")


async def _mend(world: World, options: Options, story: Story) -> None:
    (world.mended / f"{options.way}-{options.seed}").touch()
    await readside(world, "dead-letters", "retry", world.cast.app, "--key", _KEY)
    caught_up, verdicts = await catch_up(world)
    story.expect(caught_up is not None, "the retry did not bring everything up to date")
    left = {(one["projection"], one["key"]) for one in await listed(world.environment())}
    wanted = {(name, key) for name in WANT_WROTE for key in _STRANGE}
    story.expect(left == wanted, f"listed in the end: {sorted(left ^ wanted)} more or less")
    end_observers(world)
    oracle = read_oracle(world.dsn)
    seen = sightings(world, oracle, [], verdicts)
    story.note(
        committed=oracle.committed,
        sightings=seen["saw"],
        **{kind: verdicts.counts[kind] for kind in KINDS},
    )
    for example in verdicts.examples:
        story.expect(not example, example)
