"""Leaves out of a run what it does not need to fail, so that a person can read what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from chaos.simulation.plan import Plan

ItemT = TypeVar("ItemT")


def smallest(drawn: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """The smallest plan that still fails, as far as leaving one thing out at a time leads.

    The greedy half of Zeller and Hildebrandt's delta debugging: a plan has a few dozen parts, and a
    run takes milliseconds, so there is no need to leave out many at once.

    Args:
        drawn: a plan that fails.
        fails: whether another one does.
    """
    while True:
        smaller = next((one for one in _smaller(drawn) if fails(one)), None)
        if smaller is None:
            return drawn
        drawn = smaller


def _smaller(drawn: Plan) -> Iterator[Plan]:
    """Plans with less in them, those with much less first; what a plan allows, these do, too."""
    for rounds in (drawn.rounds // 2, drawn.rounds - 1):
        if 0 < rounds < drawn.rounds:
            yield drawn._replace(rounds=rounds)
    if len(drawn.faults) > 1:
        for fault in drawn.faults:
            yield drawn._replace(faults=(fault,))
    for faults in _without_one(drawn.faults):
        yield drawn._replace(faults=faults)
    for projections in _without_one(drawn.projections):
        if projections:
            yield drawn._replace(projections=projections)
    for crew in _without_one(drawn.crew):
        if any(relays for relays, _ in crew) and any(projects for _, projects in crew):
            yield drawn._replace(crew=crew)
    for simpler in (
        drawn._replace(rate=0.0),
        drawn._replace(spoil=0.0),
        drawn._replace(deadly=0.0),
        drawn._replace(mends=False),
        drawn._replace(shape=replace(drawn.shape, partitions=1)),
        drawn._replace(shape=replace(drawn.shape, piecemeal=False)),
        drawn._replace(shape=replace(drawn.shape, stutter=False)),
    ):
        if simpler != drawn:
            yield simpler


def _without_one(items: tuple[ItemT, ...]) -> Iterator[tuple[ItemT, ...]]:
    for number in range(len(items)):
        yield items[:number] + items[number + 1 :]
