"""Repeats a fault whose effect the run has to show and has not shown yet, a few times."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from chaos.effects import noted, said
from chaos.plan import Fault, expected
from chaos.world import World

_TIMES = 3

#: Effect -> the fault that has it: kind, target, seconds.
_STRONGEST = {
    "connections_cut": ("link_cut", "postgres", 0.0),
    "retries": ("valkey_kill", "valkey", 1.0),
    "leases_moved": ("zombie", "projector", 8.0),
    "writes_fenced": ("zombie", "projector", 8.0),
    "documents_parked": ("poison_raises", "events", 4.0),
    "holes_asked_for": ("stream_deleted", "nats", 1.0),
    "resends": ("stream_deleted", "nats", 1.0),
}
#: In direct mode, a lane that has lost its store listens anew, and has missed what came meanwhile.
_STRONGEST_DIRECT = {
    **_STRONGEST,
    "leases_moved": ("zombie", "projector", 13.0),
    "writes_fenced": ("zombie", "projector", 13.0),
    "holes_asked_for": ("valkey_kill", "valkey", 2.0),
    "resends": ("valkey_kill", "valkey", 2.0),
}


async def encore(
    world: World, strike: Callable[[Fault], Awaitable[None]], began: Callable[[], float]
) -> Counter[str]:
    """Strike again for every effect that is still missing, while the writers write.

    Returns:
        how often each effect was asked for again.
    """
    options = world.options
    chance = random.Random(f"encore {options.seed}")
    faults = _STRONGEST_DIRECT if options.broker == "direct" else _STRONGEST
    repeated: Counter[str] = Counter()
    for _ in range(_TIMES):
        missing = [
            name for name in expected(options.seed, options.broker) if not _seen(world, name)
        ]
        for kind in dict.fromkeys(faults[name] for name in missing):
            print(f"         no {', '.join(missing)} yet", file=sys.stderr, flush=True)
            await strike(Fault(round(began(), 2), *kind, chance.random()))
        repeated.update(missing)
        if not missing:
            break
    return repeated


def _seen(world: World, effect: str) -> bool:
    if effect == "connections_cut":
        return bool(world.cuts)
    if effect == "leases_moved":
        return bool(noted(world.dsn)[effect])
    return bool(said(logs(world))[effect])


def logs(world: World) -> list[Path]:
    """What readside's processes have said."""
    return [node.child.log for node in world.nodes]
