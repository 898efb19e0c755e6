"""What a seed means: the shape of the world, who works in it, and which faults it knows."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from chaos.simulation.nemesis import HISTORY
from readside.testing.world import Shape

#: So long that PostgreSQL forgets nothing during a run.
_NEVER = 3600.0
#: Seconds until the source may forget what was applied.
_DELAYS = (0.5, 1.0, 5.0, _NEVER)

_CALLS = ("refused", "unanswered", "slow")
_PROCESSES = ("kill", "vanish", "stop", "freeze", "die_at")
_LOG = (
    "log_wiped",
    "log_cut",
    "tail_lost",
    "log_rolled_back",
    "log_away",
    "publish_cut",
    "repeated",
)
_STORE = ("store_away", "store_rolled_back")
_LETTERS = ("deploy", "retry", "discard")
#: How likely a run is mostly about parked documents.
_LETTERS_OFTEN = 0.1
#: How likely the database's clock steps back in a run.
_CLOCK_OFTEN = 0.15
_SOURCE = ("database_crash", "database_away", "quiet")


class Plan(NamedTuple):
    """One run."""

    shape: Shape
    projections: tuple[str, ...]
    #: The roles of each process: relay, projector.
    crew: tuple[tuple[bool, bool], ...]
    faults: tuple[str, ...]
    #: How likely a call fails, while calls fail.
    rate: float
    spoil: float
    #: How likely an event ends the process.
    deadly: float
    #: Whether everything that could not be applied is mended and retried at the end.
    mends: bool
    rounds: int


def plan(seed: int) -> Plan:
    """Draw a run. Each knows only some of the faults, so that rare combinations come often."""
    chance = random.Random(f"letters {seed}")
    if chance.random() < _LETTERS_OFTEN:
        return _of_letters(_drawn(seed), chance)
    drawn = _drawn(seed)
    # By chance of its own, so that the other seeds tell what they always told.
    if random.Random(f"clock {seed}").random() < _CLOCK_OFTEN:
        drawn = drawn._replace(faults=tuple(sorted({*drawn.faults, "clock_back"})))
    return drawn


def _of_letters(drawn: Plan, chance: random.Random) -> Plan:
    """A run mostly about parked documents, in a store that comes back older or empty meanwhile.

    What is parked, given up, retried and undone has to meet in one document: by chance it never does.
    """
    others = chance.sample(("kill", "die_at", "slow", "store_away"), chance.randint(0, 2))
    return drawn._replace(
        shape=replace(drawn.shape, settle_delay=_NEVER),
        projections=("fragile",),
        faults=tuple(sorted({*_LETTERS, "store_rolled_back", "store_wiped", *others})),
        rate=min(drawn.rate, 0.05),
        spoil=chance.choice((0.02, 0.1)),
        deadly=0.0,
        rounds=chance.randint(5, 25),
    )


def _drawn(seed: int) -> Plan:
    chance = random.Random(f"plan {seed}")
    direct = chance.random() < 0.3
    shape = Shape(
        partitions=chance.randint(1, 4),
        direct=direct,
        chunk=chance.choice((1, 2, 5, 4000)),
        piecemeal=chance.random() < 0.2,
        stutter=chance.random() < 0.3,
        settle_delay=chance.choice(_DELAYS),
        seed=seed,
    )
    crew = chance.choice(_DIRECT_CREWS if direct else _CREWS)
    names = ("last", "count", "trail", "joined", "fragile", "mortal")
    projections = tuple(sorted(chance.sample(names, chance.randint(1, 3))))
    return Plan(
        shape,
        projections,
        crew,
        _faults(chance, shape, projections),
        chance.choice((0.0, 0.01, 0.05, 0.2)),
        chance.choice((0.0, 0.02)),
        chance.choice((0.002, 0.01)) if "mortal" in projections else 0.0,
        chance.random() < 0.5,
        _rounds(chance),
    )


def _rounds(chance: random.Random) -> int:
    """Mostly few: what is wrong shows in short stories already, and there are more of them a minute.

    One in twenty is long, for what takes many faults to come about.
    """
    if chance.random() < 0.05:
        return chance.randint(20, 60)
    return 2 + int(chance.expovariate(1 / 5))


_BOTH, _RELAY, _PROJECTOR = (True, True), (True, False), (False, True)
_CREWS = (
    (_BOTH,),
    (_BOTH, _BOTH),
    (_RELAY, _PROJECTOR),
    (_RELAY, _RELAY, _PROJECTOR, _PROJECTOR),
    (_BOTH, _RELAY, _PROJECTOR),
)
_DIRECT_CREWS = ((_BOTH,), (_BOTH, _BOTH), (_BOTH, _BOTH, _BOTH))


def _faults(chance: random.Random, shape: Shape, projections: Collection[str]) -> tuple[str, ...]:
    """Some faults, and never those which together leave an event nowhere at all.

    A wiped store needs either PostgreSQL or the log to have everything from the beginning.
    """
    possible = [*_CALLS, *_PROCESSES, *_STORE, *_SOURCE]
    log_is_whole = not shape.direct and chance.random() < 0.3
    if not shape.direct and not log_is_whole:
        possible += _LOG
    elif log_is_whole:
        possible += ("log_away", "publish_cut", "repeated")
    if shape.settle_delay == _NEVER or log_is_whole:
        possible.append("store_wiped")
    if not {"fragile", "mortal"}.isdisjoint(projections):
        possible += _LETTERS
    if chance.random() < 0.1:
        possible.append("give_up")
    drawn = chance.sample(possible, chance.randint(1, len(possible)))
    if chance.random() < 0.15:
        # Rarely and then for sure: what is checked is another thing from there on.
        drawn += chance.sample(sorted(HISTORY), chance.randint(1, 2))
        drawn += chance.sample(["give_up"], chance.randint(0, 1))
    if "give_up" in drawn or not HISTORY.isdisjoint(drawn):
        # What was given up, or was before a restart, is nowhere any more.
        drawn = [fault for fault in drawn if fault != "store_wiped"]
    return tuple(sorted(set(drawn)))
