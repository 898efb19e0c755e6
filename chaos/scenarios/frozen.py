"""A worker that owns partitions is frozen, another takes over, and then the frozen one wakes up.

Observers look at every document all the time: none may go back, neither when others take over nor
when the frozen one goes on where it had stopped.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import redis.asyncio as redis

from chaos.effects import said
from chaos.ending import catch_up, end_observers, end_writers, sightings
from chaos.options import Options
from chaos.oracle import read_oracle
from chaos.scenarios.stage import Story, crew, stage, until
from chaos.verdicts import KINDS
from chaos.workload import MORTAL, STABLE
from chaos.world import Cast, Node, World
from chaos.zombie import freeze, owned_by, thaw

_PATIENCE = 60.0
#: Seconds that everybody works before and after.
_WARM = 5.0
_COUNTED = (*STABLE, *MORTAL)


async def play(options: Options) -> int:
    """Freeze and thaw; 0 if no document ever went back and nothing stale was written."""
    story = Story(options)
    async with stage(options, Cast(nodes=crew(options)), story) as world:
        victim = await _victim(world)
        await asyncio.sleep(_WARM)
        await _freeze(world, victim, story)
        await asyncio.sleep(_WARM)
        if options.broker == "nats":
            again = await until(lambda: owned_by(world, victim), _PATIENCE)
            story.note(works_again_after_s=again)
            story.expect(again is not None, "the thawed worker got no partition again")
        await end_writers(world)
        caught_up, verdicts = await catch_up(world)
        end_observers(world)
        oracle = read_oracle(world.dsn)
        seen = sightings(world, oracle, [], verdicts)
        logged = said([victim.child.log])
        story.note(
            committed=oracle.committed,
            sightings=seen["saw"],
            **{kind: verdicts.counts[kind] for kind in KINDS},
            caught_up_after_s=caught_up and round(caught_up, 1),
            writes_fenced=world.fenced,
            leases_lost=logged["leases_lost"],
        )
        story.expect(caught_up is not None, "the read side did not catch up")
        for example in verdicts.examples:
            story.expect(not example, example)
        for child in world.children():
            story.expect(not child.unexpected, f"{child.name} ended: {child.unexpected}")
    story.end()
    return story.code


async def _victim(world: World) -> Node:
    """A worker that owns partitions, when all workers do that can."""
    workers = [node for node in world.nodes if node.role != "relay"]
    wanted = 1 if world.options.broker == "direct" else len(workers)

    async def owners() -> list[Node]:
        return [node for node in workers if await owned_by(world, node)]

    async def shared() -> bool:
        return len(await owners()) >= wanted

    if await until(shared, _PATIENCE) is None:
        raise RuntimeError("the workers do not share the partitions")
    return (await owners())[0]


async def _freeze(world: World, victim: Node, story: Story) -> None:
    zombie = await freeze(world, victim)
    if zombie is None:
        raise RuntimeError(f"{victim.name} cannot be frozen")
    began = time.monotonic()
    story.tell(
        f"{victim.name} owns {zombie.owned} partitions and is frozen,"
        f" with {zombie.writes} writes on their way"
    )

    async def given_up() -> bool:
        return not await owned_by(world, victim)

    taken = await until(given_up, _PATIENCE)
    behind = await _behind(world)
    moved = await until(lambda: _moved(world, behind), _PATIENCE)
    caught_up = None if moved is None else round(time.monotonic() - began, 1)
    story.tell(f"taken over after {taken} s, everything moves again after {caught_up} s")
    story.note(
        partitions=zombie.owned,
        writes_on_their_way=zombie.writes,
        frozen_s=world.options.amount,
        taken_over_after_s=taken,
        caught_up_after_takeover_s=caught_up,
    )
    story.expect(taken is not None, "nobody took the partitions over")
    story.expect(moved is not None, "what was committed meanwhile did not arrive")
    await asyncio.sleep(max(0.0, began + world.options.amount - time.monotonic()))
    fenced = await thaw(zombie)
    story.tell(f"the writes have arrived, {victim.name} is thawed: {fenced} fenced")
    story.note(stale_writes_fenced=fenced)
    if not fenced:
        story.invalid.append("no stale write has arrived")


async def _behind(world: World) -> dict[str, int]:
    """The version of every key as it is committed now."""
    row = await world.ask("SELECT json_object_agg(key, version)::text FROM chaos.keys")
    versions: dict[str, int] = msgspec.json.decode(row[0]) if row else {}
    return {key: versions[key] for key in _COUNTED if versions.get(key)}


async def _moved(world: World, versions: dict[str, int]) -> bool:
    """Whether every counter contains what was committed."""
    async with redis.Redis.from_url(world.servers.address("valkey")) as client:
        found = await client.mget([f"counters:{key}" for key in versions])
    return all(
        document is not None and msgspec.json.decode(document)["count"] >= version
        for version, document in zip(versions.values(), found, strict=True)
    )
