"""Faults of capture by polling: a poller frozen in mid-flight, and a change of capture under way."""

from __future__ import annotations

import asyncio
import time

from chaos.proxy import GOOD, Condition
from chaos.timeline import last
from chaos.world import Node, World

#: What a poller sends: the question for the next tick, and for more of a batch that is open.
_SENT = {"tick_frozen": b"readside.tick(", "batch_frozen": b"FROM batch"}
#: Seconds in which it sends that, in which another takes over, and in which what was held back arrives.
_SENDS, _TAKEN_OVER, _ARRIVE = 8.0, 20.0, 1.0
#: Seconds for a change of capture, and between two attempts at one.
_CHANGES, _AGAIN = 60.0, 0.5


async def token(world: World) -> int:
    """How many pollers there have been; 0 where that cannot be told."""
    row = await world.ask("SELECT token FROM readside.pollers WHERE app = 'chaos'")
    return int(row[0]) if row else 0


async def freeze_poller(world: World, kind: str, seconds: float) -> tuple[int, str]:
    """Freeze the poller with a question on its way until another has taken over; then all goes on.

    Returns:
        whether another polled on meanwhile, and words for people. A late question for a tick is refused
        only where the other has made none: else it is answered with that one.
    """
    node = await _poller(world)
    if node is None:
        return 0, "nobody polls"
    proxy, before = node.proxies["postgres"], await token(world)
    proxy.set(Condition(trap=_SENT[kind]))
    ended = time.monotonic() + _SENDS
    while not proxy.trapped and time.monotonic() < ended:
        await asyncio.sleep(0.01)
    pid, began, refused = node.child.pid, time.monotonic(), proxy.fenced
    if not proxy.trapped or node.child.pause() != "T":
        proxy.set(GOOD)
        return 0, f"{node.name} did not ask, or has just ended"
    while (gone := time.monotonic() - began) < seconds or (
        await token(world) <= before and gone < seconds + _TAKEN_OVER
    ):
        await asyncio.sleep(0.25)
    taken = await token(world) > before
    proxy.set(GOOD)
    await asyncio.sleep(_ARRIVE)
    if node.child.pid == pid:
        node.child.resume()
    await asyncio.sleep(_ARRIVE)
    refused = proxy.fenced - refused
    return int(taken), (
        f"{node.name} was frozen for {gone:.1f} s; taken over: {taken}, refused: {refused}"
    )


async def _poller(world: World) -> Node | None:
    for _ in range(20):
        if world.capture == "polling" and (node := await world.relay()):
            return node
        await asyncio.sleep(0.25)
    return None


async def change_capture(world: World, stopping: asyncio.Event) -> tuple[int, str]:
    """Change the capture, under way.

    Returns:
        whether it was changed, and words for people.
    """
    other = "replication" if world.capture == "polling" else "polling"
    began, changed = time.monotonic(), await _change(world, other, stopping)
    return changed, f"capture by {world.capture}, after {time.monotonic() - began:.1f} s"


async def _change(world: World, capture: str, stopping: asyncio.Event) -> int:
    ended = time.monotonic() + _CHANGES
    while time.monotonic() < ended:
        world.changes += 1
        if await world.install(READSIDE_CAPTURE=capture) == 0:
            world.tell_capture(capture)
            return 1
        if stopping.is_set():
            # An init that was interrupted may have been done all the same.
            break
        await last(_AGAIN, stopping)
    row = await world.ask("SELECT capture FROM readside.capture WHERE app = 'chaos'")
    if row:
        world.tell_capture(row[0])
    return 0
