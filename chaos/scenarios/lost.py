"""The replication slot is gone: dropped by somebody, or invalidated because it kept too much WAL.

Nothing may happen in silence: the projections say `lost`, readers are told, documents stand still.
After the operator's ``readside reset … --give-up`` everything that is recorded from then on is in
the documents, and of what was recorded before the reset no more than its end (docs/failure-modes.md).
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg

from chaos.ending import end_observers, end_writers, sightings
from chaos.final import read_documents
from chaos.options import Options
from chaos.oracle import Oracle, read_oracle
from chaos.poisons import commit_change
from chaos.scenarios.stage import Story, crew, readside, stage, status, until
from chaos.verdicts import Verdicts
from chaos.workload import KEYS, STREAMS, Change
from chaos.world import Cast, World

_PROJECTIONS = ("lists", "registers", "counters", "pairs", "totals")
_PATIENCE = 90.0
_WARM = 5.0
#: Seconds in which writers go on to write, and to read, while everything is lost.
_LOST = 3.0
_SLOT = "readside_chaos"


async def play(options: Options) -> int:
    """Take the slot away, see that everybody is told, give up, and see what comes after."""
    story = Story(options)
    ways = {"dropped": _drop, "invalidated": _invalidate}
    async with stage(options, Cast(nodes=crew(options)), story) as world:
        await asyncio.sleep(_WARM)
        story.note(way=options.way, slot_was=await ways[options.way](world))
        story.tell(f"the slot is {options.way}")
        said_after = await until(lambda: _all_lost(world), _PATIENCE)
        story.note(lost_said_after_s=said_after)
        story.expect(said_after is not None, "not every projection says that it is lost")
        await asyncio.sleep(_LOST)
        end_observers(world)
        await end_writers(world)
        await _judge_the_past(world, story)
        if not story.wrong:
            await _give_up(world, story)
        for child in world.children():
            story.expect(not child.unexpected, f"{child.name} ended: {child.unexpected}")
    story.end()
    return story.code


async def _execute(world: World, *statements: str) -> list[Any]:
    found: list[Any] = []
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as connection:
        for statement in statements:
            cursor = await connection.execute(statement.encode())
            found = await cursor.fetchall() if cursor.description else []
    return found


async def _drop(world: World) -> str:
    """Drop it from under the relay."""
    for _ in range(200):
        try:
            await _execute(
                world,
                f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                f" WHERE slot_name = '{_SLOT}' AND active_pid IS NOT NULL",
                f"SELECT pg_drop_replication_slot('{_SLOT}')",
            )
        except psycopg.errors.ObjectInUse:
            continue  # a standby was quicker
        return "dropped"
    raise RuntimeError("the slot cannot be dropped")


async def _invalidate(world: World) -> str:
    """Let it fall behind further than PostgreSQL is willing to keep WAL."""
    for node in world.nodes:
        node.child.pause()
    await _execute(
        world, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()"
    )

    async def lost() -> bool:
        await _execute(world, "SELECT pg_switch_wal()", "CHECKPOINT")
        row = await world.ask("SELECT wal_status FROM pg_replication_slots")
        return row == ("lost",)

    if await until(lost, _PATIENCE) is None:
        raise RuntimeError("the slot is not invalidated")
    await _execute(world, "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
    for node in world.nodes:
        node.child.resume()
    return "lost"


async def _all_lost(world: World) -> bool:
    found = await status(world)
    return found is not None and all(
        partition["state"] == "lost"
        for projection in found["projections"]
        for partition in projection["partitions"]
    )


async def _judge_the_past(world: World, story: Story) -> None:
    """Until the reset no document has left its history, and readers were told."""
    verdicts = Verdicts()
    seen = sightings(world, read_oracle(world.dsn), [], verdicts)
    told = seen["refused: HistoryLostError"]
    story.note(sightings=seen["saw"], readers_told=told)
    for example in verdicts.examples:
        story.expect(not example, example)
    story.expect(told, "no reader was told that history is lost")
    code, _ = await readside(world, "status", world.cast.app)
    story.expect(code == 1, f"status ended with {code} although everything is lost")


async def _give_up(world: World, story: Story) -> None:
    before = {key: len(entries) for key, entries in read_oracle(world.dsn).history.items()}
    for projection in _PROJECTIONS:
        command = ("reset", world.cast.app, projection, "--give-up", "--yes")
        code, output = await readside(world, *command)
        story.expect(code == 0, f"reset of {projection} ended with {code}: {output[-300:]}")
    story.tell("everything is given up; now each key gets an event")
    for key in KEYS:
        await commit_change(world.dsn, Change({key: 3}), random.Random(key))
    oracle = read_oracle(world.dsn)
    wrong: list[str] = []

    async def right() -> bool:
        documents = await asyncio.to_thread(read_documents, world.documents)
        wrong[:] = _compare(documents, oracle, before)
        return not wrong

    after = await until(right, _PATIENCE)
    story.note(right_after_s=after, committed=oracle.committed)
    story.expect(after is not None, f"{len(wrong)} documents are wrong: {wrong[:5]}")

    async def healthy() -> bool:
        return (await readside(world, "status", world.cast.app))[0] == 0

    well = await until(healthy, _PATIENCE)
    story.expect(well is not None, "status does not call it healthy after the reset")


def _compare(documents: dict[str, Any], oracle: Oracle, before: dict[str, int]) -> list[str]:
    """Each document is the fold of an end of its history that begins at the reset or before."""
    wrong: list[str] = []
    for key, entries in oracle.history.items():
        new = len(entries) - before.get(key, 0)
        if key in STREAMS:
            pair = documents.get(f"pairs:p-{key.partition('-')[2]}") or {"streams": {}}
            marks = [entry.mark for entry in entries]
            if not _is_end(pair["streams"].get(key, []), marks, new):
                wrong.append(f"pairs {key}")
            continue
        found = documents.get(f"lists:{key}")
        if not _is_end(found["marks"] if found else [], oracle.lists[key] or [], new):
            wrong.append(f"lists:{key}")
        register = documents.get(f"registers:{key}")
        if (register and (register["version"], register["mark"])) != oracle.registers[key]:
            wrong.append(f"registers:{key}")
        counter = documents.get(f"counters:{key}") or {"count": 0, "total": 0}
        last = entries[len(entries) - counter["count"] :]
        total = sum(entry.mark % 1000 for entry in last)
        if counter["count"] < new or (len(last), total) != (counter["count"], counter["total"]):
            wrong.append(f"counters:{key}")
    return wrong


def _is_end(found: list[int], marks: list[int], new: int) -> bool:
    """Whether these are the last marks, the new ones among them."""
    end = marks[len(marks) - len(found) :] if found else []
    return found == end and len(found) >= min(new, len(marks))
