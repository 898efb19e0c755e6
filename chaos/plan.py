"""The plan of a run: which faults, when, on whom, for how long. Pure: a seed gives one plan."""

from __future__ import annotations

import random
from typing import NamedTuple

from chaos.kinds import Kind, fitting
from chaos.setup import CaptureName, Setup

#: Seconds at the beginning and the end of the fault phase without new faults.
_CALM = 2.0
#: Seconds after which a fault is tried to be placed again where all targets are busy.
_LATER = (0.7, 1.4, 2.8, 4.2)
#: Runs that are shorter have no room for what has to take effect.
ROOM = 45.0
#: Longer runs end with a part in which no process of readside is killed, so that one which grows, or
#: keeps files open, has the time to show it.
LONG = 240.0
_STEADY = 0.4


#: Longer than a lease and the next look at it; in direct mode, than PostgreSQL's patience with a
#: relay that is silent (10 s).
_ZOMBIE: dict[str, float] = {"nats": 8.0, "direct": 13.0}
#: When, as a share of a run, a run by polling changes to replication, if it does not begin with it.
_CHANGED = 0.82
#: Runs that are shorter have no room for all that the pollers have to show.
_SPACIOUS = 60.0
#: Longer than the lease of a poller.
_TICK = 6.0
#: For the zombie to wake up and try, or for the others to be ready before.
_ZOMBIE_WAITS = 5.0


class Fault(NamedTuple):
    """One entry of the plan."""

    at: float
    kind: str
    target: str
    duration: float
    #: For whatever the fault has to choose when it happens.
    dice: float


class Regime(NamedTuple):
    """What a run may wipe, and how long PostgreSQL keeps what was applied.

    What was wiped from both logs is lost for good, and readside says so; so a run either keeps
    everything in PostgreSQL and wipes at will, or forgets quickly and wipes one side only.
    """

    settle_delay: float
    wipes: frozenset[str]
    #: Whether relay and projector are processes of their own.
    separate: bool
    #: The capture at the beginning; where it is another than the run's, it is changed early on.
    begins: CaptureName = "replication"


def regime(seed: int, setup: Setup) -> Regime:
    """The regime of a seed: in turn all wipes, store only, all again, broker only."""
    if setup.inline:
        return Regime(2.0, frozenset(), separate=False)
    separate = setup.broker == "nats" and seed % 3 == 0
    if seed % 2 == 0:
        return Regime(3600.0, frozenset({"store", "broker"}), separate)
    if setup.broker == "direct":
        return Regime(2.0, frozenset(), separate, setup.capture)
    wipes = frozenset({"store" if seed % 4 == 1 else "broker"})
    return Regime(2.0, wipes, separate, setup.capture)


def expected(seed: int, setup: Setup) -> list[str]:
    """The effects that a run of this kind has to have."""
    if setup.inline:
        return ["connections_cut", "commands_failed"]
    names = ["connections_cut", "retries", "leases_moved", "documents_parked", "writes_fenced"]
    if setup.broker == "direct" or "broker" in regime(seed, setup).wipes:
        names += ["holes_asked_for", "resends", "duplicates_skipped"]
    if setup.capture == "polling":
        names += ["polls_refused", "pollers_changed"]
    return names


def make_plan(seconds: float, seed: int, setup: Setup, only: tuple[str, ...] = ()) -> list[Fault]:
    """The faults of a run in order of time.

    First come those which have to take effect, each in a time of its own; around them every kind
    that fits comes once before any comes again, and a quarter strike together with the one before.
    """
    chance = random.Random(f"{seed} {setup.chance}")
    certain = [] if only or seconds < ROOM else _certain(seconds, seed, setup, chance)
    times = _Times(seconds, [(fault.at - 1.0, _end(fault)) for fault in certain])
    kinds = [kind for kind in fitting(setup) if _allowed(kind, seed, setup, only)]
    wanted = max(3, round(seconds * 0.65))
    gap = times.free / wanted
    plan = list(certain)
    busy: dict[str, float] = {}
    deck: list[Kind] = []
    at = _CALM
    for number in range(wanted):
        if number and chance.random() > 0.25:
            at = times.real(number * gap + chance.uniform(0, gap * 0.8))
        if at >= steady_from(seconds):
            kinds = [kind for kind in kinds if not kind.kills]
            deck = [kind for kind in deck if not kind.kills]
        if at >= seconds * _CHANGED - _ZOMBIE["direct"]:
            kinds = [kind for kind in kinds if "capture" not in kind.touches]
            deck = [kind for kind in deck if "capture" not in kind.touches]
        if not deck:
            deck = chance.sample(kinds, len(kinds))
        until = times.until(at)
        for moment in (at, *(at + late for late in _LATER if at + late < until - 1.0)):
            others = chance.sample(kinds, len(kinds))  # where all that is left of the deck is busy
            fault = _place(deck, moment, until, chance, busy) or _place(
                others, moment, until, chance, busy
            )
            if fault is not None:
                plan.append(fault)
                break
    return sorted(plan)


def steady_from(seconds: float) -> float:
    """When the part begins in which no process is killed; beyond the end of a short run."""
    return seconds * (1 - _STEADY) if seconds >= LONG else seconds + 1


def _certain(seconds: float, seed: int, setup: Setup, chance: random.Random) -> list[Fault]:
    """Faults whose effects a run has to show; nothing else strikes while they last."""
    if setup.inline:
        return []
    at = round(seconds * chance.uniform(0.2, 0.3), 2)
    faults = [Fault(at, "zombie", "projector", _ZOMBIE[setup.broker], chance.random())]
    if setup.broker == "nats" and "broker" in regime(seed, setup).wipes:
        # Not a whole stream: a relay that sees its own tail gone sends again before anybody asks.
        share = 0.5 if seconds >= LONG else 0.65
        at = round(seconds * (share + chance.uniform(0, 0.05)), 2)
        faults.append(Fault(at, "messages_lost", "nats", 1.0, chance.random()))
    if setup.capture == "polling":
        late = regime(seed, setup).begins == "polling"
        at = round(seconds * _CHANGED, 2) if late else _CALM
        faults.append(Fault(at, "capture_changed", "capture", 0.0, chance.random()))
        # Between the zombie and that, or when all the others are over.
        at = _end(faults[0] if late else max(faults)) + 1.0
        tick = Fault(round(at, 2), "tick_frozen", "relay", _TICK, chance.random())
        if seconds >= _SPACIOUS and _end(tick) < (
            seconds * _CHANGED if late else seconds + _ZOMBIE_WAITS
        ):
            faults.append(tick)
    return faults


def _end(fault: Fault) -> float:
    return fault.at + fault.duration + _ZOMBIE_WAITS


class _Times:
    """The times that are free for faults, as if they were one."""

    def __init__(self, seconds: float, taken: list[tuple[float, float]]) -> None:
        self._end = seconds
        self._taken = sorted(taken)
        self.free = seconds - 2 * _CALM - sum(end - start for start, end in taken)

    def real(self, moment: float) -> float:
        """When that moment of the free time is."""
        at = _CALM + moment
        for start, end in self._taken:
            if at >= start:
                at += end - start
        return at

    def until(self, at: float) -> float:
        """When the free time ends in which this moment is."""
        return min([self._end, *(start for start, _ in self._taken if start > at)])


def _allowed(kind: Kind, seed: int, setup: Setup, only: tuple[str, ...]) -> bool:
    allowed = regime(seed, setup).wipes
    return (not only or kind.name in only) and (not kind.wipes or kind.wipes in allowed)


def _place(
    deck: list[Kind], at: float, until: float, chance: random.Random, busy: dict[str, float]
) -> Fault | None:
    for kind in deck:
        target = chance.choice(kind.targets)
        lanes = [f"link {target}" if kind.name.startswith("link") else target, *kind.touches]
        if any(busy.get(lane, 0.0) > at for lane in lanes):
            continue
        duration = min(chance.uniform(kind.shortest, kind.longest), max(0.5, until - at))
        for lane in lanes:
            busy[lane] = at + duration + kind.waits
        deck.remove(kind)
        return Fault(round(at, 2), kind.name, target, round(duration, 2), chance.random())
    return None
