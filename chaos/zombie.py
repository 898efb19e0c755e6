"""A process that is frozen until others have its work, and wakes up with events in its hands."""

from __future__ import annotations

import asyncio
import time

from chaos.effects import said
from chaos.world import Node, World

_READY = 5.0
#: Seconds in which the others may take over, beyond those that were asked for.
_TAKEN_OVER = 15.0
#: Seconds that the zombie has for its try.
_TRY = 2.5

_OWNS = (
    "SELECT count(*) FROM readside.leases WHERE owner LIKE %s AND expires_at > clock_timestamp()"
)


async def make_zombie(world: World, seconds: float, dice: float) -> tuple[int, str]:
    """Freeze a worker that owns partitions, until others have them and `seconds` are over.

    While it is frozen the broker, or PostgreSQL, goes on sending to it: when it wakes up it has
    records to apply before it can learn that they are no longer its business.

    Returns:
        how many of its writes were fenced, and words for people.
    """
    node = await _owner(world, dice)
    if node is None:
        return 0, "nobody owns a partition"
    child = node.child
    before = said([child.log])["writes_fenced"]
    owned = await owned_by(world, node)
    pid, state = child.pid, child.pause()
    if state != "T":
        return 0, f"{node.name} has just ended"
    began = time.monotonic()
    while time.monotonic() - began < seconds or (
        await owned_by(world, node) and time.monotonic() - began < seconds + _TAKEN_OVER
    ):
        await asyncio.sleep(0.25)
    frozen = time.monotonic() - began
    if child.pid == pid:
        child.resume()
    ended = time.monotonic() + _TRY
    fenced = 0
    while not fenced and time.monotonic() < ended:
        await asyncio.sleep(0.2)
        fenced = said([child.log])["writes_fenced"] - before
    return fenced, (
        f"{node.name} owned {owned} partitions, was frozen for {frozen:.1f} s, woke up as a zombie:"
        f" {fenced} writes fenced"
    )


async def owned_by(world: World, node: Node) -> int:
    """How many partitions a node holds now."""
    row = await world.ask(_OWNS, [f"%-{node.child.pid}-%"])
    return int(row[0]) if row else 0


async def _owner(world: World, dice: float) -> Node | None:
    """A node with partitions, rather one that has not the relay; waits a while for one."""
    ended = time.monotonic() + _READY
    while time.monotonic() < ended:
        relay = await world.relay()
        owners = [node for node in world.nodes if await owned_by(world, node)]
        others = [node for node in owners if node is not relay] or owners
        if others:
            return others[int(dice * len(others))]
        await asyncio.sleep(0.25)
    return None
