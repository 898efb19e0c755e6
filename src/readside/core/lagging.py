"""How old the oldest unapplied record is, from a few notes instead of every record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """Record number `nth` of a partition was recorded at a time, in microseconds since 1970."""

    nth: int
    recorded_at: int


class Lagging:
    """Notes for each partition when some of its records were recorded; bounded by thinning out."""

    def __init__(self, capacity: int = 64) -> None:
        self.samples: dict[int, list[Sample]] = {}
        self._capacity = capacity

    def add(self, partition: int, sample: Sample) -> None:
        """Note one record; of many notes, every second old one goes."""
        kept = self.samples.setdefault(partition, [])
        kept.append(sample)
        if len(kept) > self._capacity:
            self.samples[partition] = [*kept[: len(kept) // 2 : 2], *kept[len(kept) // 2 :]]


def oldest_after(samples: Sequence[Sample], applied: int) -> int | None:
    """When the first noted record after number `applied` was recorded; None if there is none."""
    return next((sample.recorded_at for sample in samples if sample.nth > applied), None)


def seconds_behind(
    samples: Mapping[int, Sequence[Sample]],
    partition: int,
    applied: int,
    now: int,
    shipped_at: int,
) -> float:
    """How long ago the oldest unapplied record of a partition was recorded, about.

    Args:
        samples: the relay's notes.
        partition: the partition.
        applied: number of its last applied record.
        now: microseconds since 1970 by the clock that recorded.
        shipped_at: when the last record of all partitions was recorded, in case that no note is
            left which is young enough: then it is as old as this at least.
    """
    recorded_at = oldest_after(samples.get(partition, ()), applied)
    return max(0.0, (now - (shipped_at if recorded_at is None else recorded_at)) / 1e6)
