"""Who works on which partition: a fair share each, and as few moves as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

#: How the name of a worker begins which resets a projection: while its lease lasts, nobody takes it.
RESETS = "reset-"

#: Seconds that a lease lasts at most. One that ends later was given before the clock stepped back, and
#: counts no more: its owner may have died since.
LONGEST = 60.0


class Unit(NamedTuple):
    """One partition of one projection: what a worker owns."""

    projection: str
    partition: int


class Plan(NamedTuple):
    """What a worker should do about its leases now."""

    acquire: tuple[Unit, ...]
    release: tuple[Unit, ...]


def plan(worker: str, workers: list[str], leases: Mapping[Unit, str | None]) -> Plan:
    """Decide from one consistent view of the lease table.

    Args:
        worker: the one that asks.
        workers: all that are alive, the asking one among them.
        leases: the owner of each unit, None if it is free or its lease has run out.

    Every worker computes the same shares (those who own most take the remainder, and of equals
    those first in order of name), takes free units up to its share and gives up only what exceeds
    it. So one that joins or leaves moves no more units than fairness demands, and nobody has to lead.
    """
    owned = Counter(leases.values())
    crew = sorted(set(workers) | {worker}, key=lambda name: (-owned[name], name))
    base, extra = divmod(len(leases), len(crew))
    share = base + (1 if crew.index(worker) < extra else 0)
    mine = sorted(unit for unit, owner in leases.items() if owner == worker)
    free = sorted(unit for unit, owner in leases.items() if owner is None)
    return Plan(tuple(free[: max(0, share - len(mine))]), tuple(mine[share:]))
