"""The end of a run: writers stop, the read side catches up, and everything that was seen is judged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable

from chaos.final import compare
from chaos.oracle import Oracle, read_oracle
from chaos.sightings import States, Window, check_observer, check_writer
from chaos.timeline import say
from chaos.verdicts import Verdicts
from chaos.world import World

_STOP_WRITERS = 45.0
#: Seconds for which everything has to stay right.
_CALM = 2.0


async def end_writers(world: World) -> None:
    """See that every node runs, and let the writers finish."""
    for node in world.nodes:
        node.child.resume()
        node.child.start()
    codes = await asyncio.gather(
        *(asyncio.to_thread(w.terminate, _STOP_WRITERS) for w in world.writers)
    )
    if any(code is None for code in codes):
        say("         a writer did not end by itself and was killed")


def end_observers(world: World) -> None:
    """Let the observers finish."""
    for observer in world.observers:
        observer.terminate(5.0)


async def catch_up(world: World) -> tuple[float | None, Verdicts]:
    """Wait until the read store is as the oracle says and stays so, or nothing moves for too long.

    After a long run a store that was wiped last is filled from the first event: that takes what it takes.

    Returns:
        seconds until it was (None if it never was), and what is wrong.
    """
    began = moved = time.monotonic()
    before = Verdicts()
    oracle = read_oracle(world.dsn)
    url = world.documents
    calm: float | None = None
    while True:
        verdicts = await asyncio.to_thread(compare, url, oracle)
        now = time.monotonic()
        if verdicts.wrong:
            calm = None
        elif calm is None:
            calm = now
            say(f"caught up after {now - began:.1f} s")
        elif now - calm > _CALM:
            return calm - began, verdicts
        if verdicts.counts != before.counts:
            before, moved = verdicts, now
        if now - moved > world.options.patience or now - began > 10 * world.options.patience:
            return None, verdicts
        await asyncio.sleep(0.5)


def sightings(
    world: World, oracle: Oracle, windows: Iterable[Window], verdicts: Verdicts
) -> Counter[str]:
    """Judge what observers and writers saw; return what they saw, counted."""
    states = States(oracle)
    seen: Counter[str] = Counter()
    for observer in world.observers:
        path = world.directory / f"{observer.name}.journal"
        seen += check_observer(path, states, windows, verdicts)
    for writer in world.writers:
        path = world.directory / f"{writer.name}.journal"
        seen += check_writer(path, states, verdicts)
    return seen
