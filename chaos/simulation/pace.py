"""Says now and then, on standard error, how far a run is and how long it will take."""

from __future__ import annotations

import resource
import sys
import time

#: Seconds between two lines.
_EVERY = 5.0


class Pace:
    """How fast the seeds go.

    Args:
        seeds: how many there are.
        most: seconds after which no further seed begins; None for no such bound.
    """

    def __init__(self, seeds: int, most: float | None) -> None:
        self._seeds = seeds
        self._most = most
        self._began = self._said_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        """Of this process, and of the workers that have ended: what a busy machine does not change."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    @property
    def over(self) -> bool:
        """Whether no further seed may begin."""
        return self._most is not None and self.seconds > self._most

    def tell(self, done: int, faults: int, failed: int) -> None:
        """Say it, unless it was said just now."""
        now = time.monotonic()
        if now - self._said_at < _EVERY:
            return
        self._said_at = now
        left = self.seconds / done * (self._seeds - done)
        if self._most is not None:
            left = min(left, max(0.0, self._most - self.seconds))
        print(
            f"{done} of {self._seeds} seeds, {done / self.seconds:.1f} a second,"
            f" {faults / self.seconds:.0f} faults a second, {failed} failed,"
            f" {left / 60:.1f} minutes left",
            file=sys.stderr,
        )
