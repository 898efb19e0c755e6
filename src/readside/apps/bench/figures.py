"""Medians, spreads and percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}


class Spread(NamedTuple):
    """What several rounds gave."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value with at least this share of all values at or below it."""
    if not ordered:
        raise ValueError("no values")
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


def percentiles(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """p50, p90, p99 and p99.9, multiplied by `scale`."""
    ordered = sorted(values)
    return {
        name: round(percentile(ordered, share) * scale, 2) for name, share in PERCENTILES.items()
    }


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Each round's value by the same round's other value: what was measured side by side belongs together."""
    return [one / other for one, other in zip(above, below, strict=True) if other]
