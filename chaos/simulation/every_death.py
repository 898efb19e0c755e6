"""One short story, told again and again, with a death at each of its I/O boundaries.

A boundary is the moment before a call of a server or after it, whoever makes the call: relay,
projector, or the operator who retries dead letters. None is left out and none is drawn by chance.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import NamedTuple

from chaos.simulation.operator import Operator, persist
from readside.testing.clock import run
from readside.testing.truth import differences
from readside.testing.workload import Removed, Spoiled, Wrote, projections
from readside.testing.world import Shape, World, here

_SHAPES = {
    "log": Shape(),
    "chunks": Shape(chunk=1, stutter=True),
    "direct": Shape(direct=True),
    "piecemeal": Shape(piecemeal=True),
}
_HISTORY = (
    (Wrote("thing-1", 1, "target"), Wrote("thing-2", 2, "target"), Spoiled("thing-1", 3)),
    (Wrote("thing-1", 4, "target"), Removed("thing-2", 5), Wrote("thing-3", 6, "target")),
)
_LAST = (Wrote("thing-1", 7, "target"), Wrote("thing-2", 8, "target"))
_PROJECTIONS = ("fragile", "joined")


class _Boundaries:
    """A gate that counts what passes, and ends the process that comes as number `fatal`."""

    def __init__(self, fatal: int | None) -> None:
        self._fatal = fatal
        #: Cleared when the story is told, and only idleness is left.
        self.open = True
        self.passed: list[str] = []

    async def before(self, call: str) -> None:
        """See readside.testing.faults.Gate."""
        self._pass("before", call)

    async def after(self, call: str) -> None:
        """See readside.testing.faults.Gate."""
        self._pass("after", call)

    def _pass(self, side: str, call: str) -> None:
        process = here()
        if not self.open or call.startswith("clock.") or process is None:
            return
        who = "operator" if isinstance(process, Operator) else "process"
        self.passed.append(f"{who} {side} {call}")
        if len(self.passed) == self._fatal:
            process.die()


class Told(NamedTuple):
    """One telling."""

    passed: list[str]
    problems: list[str]


def every_death() -> int:
    """Die everywhere; 0 if nothing was ever wrong. The last line of the output is JSON."""
    began = time.monotonic()
    tried: Counter[str] = Counter()
    places: set[str] = set()
    failed = []
    for name, shape in _SHAPES.items():
        undisturbed = tell(shape, None)
        failed += [f"{name}, undisturbed: {problem}" for problem in undisturbed.problems]
        for number, place in enumerate(undisturbed.passed, 1):
            told = tell(shape, number)
            tried[name] += 1
            places.add(place)
            same = told.passed[:number] == undisturbed.passed[:number]
            problems = told.problems if same else [*told.problems, "it took another course before"]
            failed += [f"{name}, {place}, boundary {number}: {problem}" for problem in problems]
        print(f"{name}: {tried[name]} boundaries", file=sys.stderr)
    print("\n".join(failed[:20]))
    found = {
        "boundaries": tried.total(),
        "by_shape": dict(tried),
        "distinct": sorted(places),
        "failed": len(failed),
        "seconds": round(time.monotonic() - began, 2),
    }
    print(json.dumps(found))
    return 1 if failed else 0


def tell(shape: Shape, fatal: int | None) -> Told:
    """Tell the story once, with a death at a boundary, or none."""
    boundaries = _Boundaries(fatal)
    return Told(boundaries.passed, run(_story(shape, boundaries)))


async def _story(shape: Shape, boundaries: _Boundaries) -> list[str]:
    mended: list[bool] = []
    every = projections(lambda: bool(mended))
    world = World({name: every[name] for name in _PROJECTIONS}, shape, boundaries)
    parked = world.database.tables.parked_documents
    try:
        world.start()
        for transaction in _HISTORY:
            world.database.commit(*transaction)
            await world.caught_up()
        mended.append(True)
        await persist(world, Operator.retry_all, lambda: not parked)
        world.database.commit(*_LAST)
        await world.caught_up()
        await asyncio.sleep(0.3)
        # A death may have come in the last moment: what comes back must leave it as it is.
        boundaries.open = False
        await asyncio.sleep(7)
        await world.revive()
        await world.caught_up()
    except AssertionError as late:
        return [str(late)]
    finally:
        await world.close()
    left = [f"{unit.projection}:{key} is parked for good" for unit, key in parked]
    return [*left, *differences(world)]
