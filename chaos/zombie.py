"""A process that is frozen with writes on their way, until others have its work; then all goes on."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from chaos.proxy import GOOD, Condition, Proxy
from chaos.world import Node, World

_READY = 5.0
#: Seconds in which a write is waited for, and in which more may follow it.
_WRITES = (8.0, 0.3)
#: Seconds in which the others may take over, beyond those that were asked for.
_TAKEN_OVER = 20.0
#: Seconds that the writes have on their way.
_ARRIVE = 1.0
#: What is in a write to the read store and in nothing else that goes there: a script is called, or
#: documents come as an array of JSON.
_WRITE = {"valkey": b"EVALSHA", "tables": b"[{"}

_OWNS = (
    "SELECT count(*) FROM readside.leases WHERE owner LIKE %s AND expires_at > clock_timestamp()"
)


class Zombie(NamedTuple):
    """A node that is frozen, and what it was about to write."""

    node: Node
    pid: int
    #: Its way to the read store.
    proxy: Proxy
    #: Partitions that it owned.
    owned: int
    #: Connections on which a write is held back.
    writes: int


async def freeze(world: World, node: Node) -> Zombie | None:
    """Stop a node at a moment when it has sent writes which have not arrived; None if it would not."""
    store = world.setup.read_store
    proxy = node.proxies[store]
    owned = await owned_by(world, node)
    proxy.set(Condition(trap=_WRITE[store]))
    ended = time.monotonic() + _WRITES[0]
    while not proxy.trapped and time.monotonic() < ended:
        await asyncio.sleep(0.01)
    await asyncio.sleep(_WRITES[1])
    pid = node.child.pid
    if node.child.pause() != "T":
        proxy.set(GOOD)
        return None
    return Zombie(node, pid, proxy, owned, proxy.trapped)


async def thaw(zombie: Zombie) -> int:
    """Let its writes arrive, and let it go on; how many of them were fenced."""
    proxy = zombie.proxy
    before = proxy.fenced
    proxy.set(GOOD)
    await asyncio.sleep(_ARRIVE)
    if zombie.node.child.pid == zombie.pid:
        zombie.node.child.resume()
    await asyncio.sleep(_ARRIVE)
    return proxy.fenced - before


async def make_zombie(world: World, seconds: float, dice: float) -> tuple[int, str]:
    """Freeze a worker that owns partitions, until others have them and `seconds` are over.

    Returns:
        how many of its writes were fenced, and words for people.
    """
    node = await _owner(world, dice)
    if node is None:
        return 0, "nobody owns a partition"
    zombie = await freeze(world, node)
    if zombie is None:
        return 0, f"{node.name} has just ended"
    began = time.monotonic()
    while time.monotonic() - began < seconds or (
        await owned_by(world, node) and time.monotonic() - began < seconds + _TAKEN_OVER
    ):
        await asyncio.sleep(0.25)
    frozen = time.monotonic() - began
    fenced = await thaw(zombie)
    return fenced, (
        f"{node.name} owned {zombie.owned} partitions, was frozen for {frozen:.1f} s with"
        f" {zombie.writes} writes on their way: {fenced} fenced"
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
