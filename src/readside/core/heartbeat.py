"""When to tell a partition how far the history is known."""

from __future__ import annotations

#: Seconds between two watermarks of a busy partition: nobody who waits for a token waits longer.
SOONEST = 0.004
#: Seconds between two watermarks of any partition: a lost tail is noticed by them.
LATEST = 1.0
#: Watermarks at the sooner pace after a record. A token is the log's end, which may be past the record's
#: own end: the first watermark may fall short of it, and nobody should wait for the later pace then.
TIMES = 3


class Heartbeats:
    """Decides which partitions need a watermark now. Times are seconds of any steady clock."""

    def __init__(self, partitions: int) -> None:
        self._said_at = [0.0] * partitions
        #: Watermarks that a partition is to get soon.
        self._dirty: dict[int, int] = {}

    def touched(self, partition: int) -> None:
        """Note that a record was sent to a partition."""
        self._dirty[partition] = TIMES

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
                if settled and partition in self._dirty:
                    self._dirty[partition] -= 1
                    if not self._dirty[partition]:
                        del self._dirty[partition]
        return found
