"""Events and projections which show every loss, repetition and reordering."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from readside.core.event import Event
from readside.core.projection import Projection
from readside.core.view import View
from readside.testing.world import World


class Wrote(Event, key="id", type="thing.wrote"):
    """Something was written, with a number that is used once."""

    id: str
    n: int
    target: str


class Removed(Event, key="id", type="thing.removed"):
    """A thing is gone; it may come back."""

    id: str
    n: int


class Spoiled(Event, key="id", type="thing.spoiled"):
    """What the handler of the fragile projection cannot take."""

    id: str
    n: int


class Deadly(Event, key="id", type="thing.deadly"):
    """What ends the process whose handler of the mortal projection gets it."""

    id: str
    n: int


class Last(View):
    """The last write wins."""

    n: int


class Count(View):
    """How many, and their sum: a repetition or a loss changes it for good."""

    count: int
    total: int


class Trail(View):
    """Everything in its order."""

    numbers: list[int]


class Joined(View):
    """A document that several partitions feed: what came from each thing, in its order."""

    parts: dict[str, list[int]]


def _never() -> bool:
    return False


def projections(
    mended: Callable[[], bool] = _never, fatal: Callable[[], None] | None = None
) -> dict[str, Projection[Any]]:
    """One of each kind.

    Args:
        mended: whether the handlers can take now what they could not.
        fatal: ends or hangs the process; without it there is no mortal projection.
    """
    made: list[Projection[Any]] = [_last(), _count(), _trail(), _joined(), _fragile(mended)]
    if fatal is not None:
        made.append(_mortal(mended, fatal))
    return {projection.name: projection for projection in made}


def _last() -> Projection[Last]:
    last = Projection("last", Last)
    last.on(Wrote)(lambda event: Last(event.n))
    last.on(Removed)(lambda _: None)
    return last


def _count() -> Projection[Count]:
    count = Projection("count", Count)

    @count.on(Wrote)
    def wrote(event: Wrote, view: Count | None) -> Count:
        return Count(view.count + 1, view.total + event.n) if view else Count(1, event.n)

    count.on(Removed)(lambda _: None)
    return count


def _appended(event: Any, view: Trail | None) -> Trail:
    return Trail([*(view.numbers if view else []), event.n])


def _trail() -> Projection[Trail]:
    trail = Projection("trail", Trail)
    for event in (Wrote, Removed, Spoiled):
        trail.on(event)(_appended)
    return trail


def _joined() -> Projection[Joined]:
    joined = Projection("joined", Joined)

    @joined.on(Wrote, key="target")
    def wrote(event: Wrote, view: Joined | None) -> Joined:
        parts = dict(view.parts) if view else {}
        parts[event.id] = [*parts.get(event.id, []), event.n]
        return Joined(parts)

    return joined


def _fragile(mended: Callable[[], bool]) -> Projection[Trail]:
    fragile = Projection("fragile", Trail)
    fragile.on(Wrote)(_appended)

    @fragile.on(Spoiled)
    def spoiled(event: Spoiled, view: Trail | None) -> Trail:
        if not mended():
            raise ValueError(f"cannot take {event.n}")
        return _appended(event, view)

    return fragile


def _mortal(mended: Callable[[], bool], fatal: Callable[[], None]) -> Projection[Trail]:
    mortal = Projection("mortal", Trail)
    mortal.on(Wrote)(_appended)

    @mortal.on(Deadly)
    def deadly(event: Deadly, view: Trail | None) -> Trail:
        if not mended():
            fatal()
        return _appended(event, view)

    return mortal


class Writer:
    """Commits events of a few things, at random out of a seed.

    Args:
        world: whose database to write to.
        chance: where chance comes from.
        things: how many things there are.
        spoil: the probability that an event is one which cannot be handled.
        deadly: the probability that it ends the process.
    """

    def __init__(
        self,
        world: World,
        chance: random.Random,
        things: int = 5,
        spoil: float = 0.0,
        deadly: float = 0.0,
    ) -> None:
        self._world = world
        self._chance = chance
        self._things = things
        self._spoil = spoil
        self._deadly = deadly
        self.n = 0

    def event(self) -> Event:
        """The next event."""
        self.n += 1
        chance = self._chance
        thing = f"thing-{chance.randrange(self._things)}"
        if chance.random() < self._spoil:
            return Spoiled(thing, self.n)
        if self._deadly and chance.random() < self._deadly:
            return Deadly(thing, self.n)
        if chance.random() < 0.15:
            return Removed(thing, self.n)
        return Wrote(thing, self.n, f"target-{chance.randrange(2)}")

    def commit(self, most: int = 4) -> None:
        """Commit a transaction of a few events."""
        self._world.database.commit(*(self.event() for _ in range(self._chance.randint(1, most))))
