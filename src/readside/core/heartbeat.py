"""When to tell a partition how far the history is known."""

from __future__ import annotations

#: Seconds between two watermarks of a busy partition: nobody who waits for a token waits longer.
SOONEST = 0.004
#: Seconds between two watermarks of any partition: a lost tail is noticed by them.
LATEST = 1.0


class Heartbeats:
    """Decides which partitions need a watermark now. Times are seconds of any steady clock."""

    def __init__(self, partitions: int) -> None:
        self._said_at = [0.0] * partitions
        self._dirty: set[int] = set()

    def touched(self, partition: int) -> None:
        """Note that a record was sent to a partition."""
        self._dirty.add(partition)

    @property
    def pending(self) -> bool:
        """Whether a partition waits for its watermark."""
        return bool(self._dirty)

    def due(self, now: float, *, settled: bool) -> list[int]:
        """Return the partitions to tell now.

        Args:
            now: seconds.
            settled: whether the source has told of everything up to the records sent.
        """
        found = []
        for partition, said_at in enumerate(self._said_at):
            patience = SOONEST if settled and partition in self._dirty else LATEST
            if now - said_at >= patience:
                found.append(partition)
                self._said_at[partition] = now
                if settled:
                    self._dirty.discard(partition)
        return found
