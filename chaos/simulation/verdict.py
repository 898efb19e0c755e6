"""What is wrong with the documents, in the words of the invariants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from readside.testing.truth import account
from readside.testing.world import World


class Verdict(NamedTuple):
    """How often each invariant is broken; all zero where everything is right."""

    lost: int = 0
    phantom: int = 0
    double_applied: int = 0
    order_violations: int = 0

    def __add__(self, other: tuple[object, ...]) -> Verdict:
        return Verdict(*(left + int(str(right)) for left, right in zip(self, other, strict=True)))


def judge(world: World) -> Verdict:
    """Compare every document with the fold of the committed history."""
    found = Verdict()
    for name in world.projections:
        expected, actual = account(world, name, final=True)
        for key in expected.keys() | actual.keys():
            found += _document(expected.get(key), actual.get(key))
    return found


def _document(expected: Any, actual: Any) -> Verdict:
    if expected == actual:
        return Verdict()
    if actual is None:
        return Verdict(lost=1)
    if expected is None:
        return Verdict(phantom=1)
    if "numbers" in expected:
        return _list(expected["numbers"], actual["numbers"])
    if "parts" in expected:
        parts: Mapping[str, list[int]] = expected["parts"]
        found = Verdict()
        for name in parts.keys() | actual["parts"].keys():
            found += _list(parts.get(name, []), actual["parts"].get(name, []))
        return found
    if "count" in expected:
        more = actual["count"] - expected["count"]
        return Verdict(double_applied=max(more, 0), lost=max(-more, 0), phantom=int(more == 0))
    return Verdict(order_violations=1)


def _list(expected: list[int], actual: list[int]) -> Verdict:
    wanted, got = Counter(expected), Counter(actual)
    missing, more = wanted - got, got - wanted
    phantom = sum(count for number, count in more.items() if number not in wanted)
    kept = [number for number in dict.fromkeys(actual) if number in wanted]
    order = sum(left > right for left, right in pairwise(kept))
    return Verdict(missing.total(), phantom, more.total() - phantom, order)
