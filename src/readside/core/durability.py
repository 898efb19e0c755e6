"""What a read store will not forget any more, though it brings to disk later than it answers."""

from __future__ import annotations

from collections import deque

from readside.core.position import BEGINNING, Position

#: Positions noted in the time that durability takes.
_NOTES = 16


class Durability:
    """Follows one checkpoint: a position is durable when the store still has it after a while.

    To have been applied long ago is not enough: a store which crashed right after it and is away
    since then may come back without it. Only a look at the store tells. Times are steady seconds.

    Args:
        delay: seconds in which the store brings to disk, and to its replicas, what it was given.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._noted: deque[tuple[float, Position]] = deque()
        #: The last position known to be durable; `BEGINNING` while none is known.
        self.position = BEGINNING

    def went_to(self, position: Position, now: float) -> None:
        """Note that the store was just brought to a position, or found there for the first time."""
        noted = self._noted
        if len(noted) > 1 and now - noted[-2][0] < self._delay / _NOTES:
            noted.pop()  # as if it had come with this one
        noted.append((now, position))

    def seen(self, now: float) -> Position:
        """Note that the store still is where it was brought; return what is durable now."""
        noted = self._noted
        while noted and noted[0][0] <= now - self._delay:
            self.position = noted.popleft()[1]
        return self.position
