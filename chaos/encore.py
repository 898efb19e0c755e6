"""Repeats a fault whose effect the run has to show and has not shown yet, a few times."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos.effects import failed, noted, said
from chaos.faults import Faults
from chaos.plan import Fault, expected
from chaos.pollers import change_capture
from chaos.timeline import Timeline, say
from chaos.world import World

_TIMES = 3

#: Effect -> the fault that has it: kind, target, seconds.
_STRONGEST = {
    "connections_cut": ("link_cut", "postgres", 0.0),
    "retries": ("valkey_kill", "valkey", 1.0),
    "leases_moved": ("zombie", "projector", 8.0),
    "writes_fenced": ("zombie", "projector", 8.0),
    "documents_parked": ("poison_raises", "events", 4.0),
    "holes_asked_for": ("messages_lost", "nats", 1.0),
    "resends": ("messages_lost", "nats", 1.0),
    "duplicates_skipped": ("messages_lost", "nats", 1.0),
    "polls_refused": ("tick_frozen", "relay", 7.0),
    "pollers_changed": ("batch_frozen", "relay", 7.0),
    "commands_failed": ("backends_ended", "postgres", 0.0),
}
#: In direct mode, a lane that has lost its store listens anew, and has missed what came meanwhile.
_STRONGEST_DIRECT = {
    **_STRONGEST,
    "leases_moved": ("zombie", "projector", 13.0),
    "writes_fenced": ("zombie", "projector", 13.0),
    "holes_asked_for": ("valkey_kill", "valkey", 2.0),
    "resends": ("valkey_kill", "valkey", 2.0),
    "duplicates_skipped": ("valkey_kill", "valkey", 2.0),
}


async def encore(world: World, timeline: Timeline, faults: Faults) -> Counter[str]:
    """Strike again for every effect that is still missing, while the writers write.

    Returns:
        how often each effect was asked for again.
    """
    options = world.options
    chance = random.Random(f"encore {options.seed}")
    strongest = _STRONGEST_DIRECT if options.broker == "direct" else _STRONGEST
    repeated: Counter[str] = Counter()
    for _ in range(_TIMES):
        missing = [name for name in expected(options.seed, world.setup) if not _seen(world, name)]
        strokes = dict.fromkeys(_of_setup(world, *strongest[name]) for name in missing)
        weak = timeline.without_effect()
        strokes |= dict.fromkeys(weak.values())
        if strokes and world.capture != world.setup.capture:
            await change_capture(world, asyncio.Event())
        for kind, target, seconds in strokes:
            say(f"         again for {', '.join([*missing, *weak])}")
            await _until_up(world)
            at = round(time.time() - timeline.began, 2)
            await faults.strike(Fault(at, kind, target, seconds, chance.random()))
        repeated.update([*missing, *weak])
        if not strokes:
            break
    return repeated


async def _until_up(world: World) -> None:
    """Wait a while until every process has said that it runs: a fault before that strikes nobody."""
    for _ in range(60):
        texts = [log.read_text(errors="replace") for log in logs(world)]
        if all(text.rfind(" runs as ") > text.rfind("--- start") for text in texts):
            return
        await asyncio.sleep(0.25)


def _of_setup(world: World, kind: str, target: str, seconds: float) -> tuple[str, str, float]:
    """The same with the name of the read store that there is."""
    store = world.setup.read_store
    return kind.replace("valkey", store), target.replace("valkey", store), seconds


def _seen(world: World, effect: str) -> bool:
    return bool(effects(world).get(effect))


def effects(world: World) -> dict[str, Any]:
    """All effects that there were until now."""
    return {
        **said(logs(world)),
        **noted(world.dsn),
        "connections_cut": world.cuts,
        "writes_fenced": world.fenced,
        "polls_refused": world.polls_refused,
        "commands_failed": failed(world.directory / f"{one.name}.journal" for one in world.writers),
    }


def logs(world: World) -> list[Path]:
    """What readside's processes have said."""
    return [node.child.log for node in world.nodes]
