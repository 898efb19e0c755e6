"""Says a thing once, and again only after a while: a log that repeats itself is not read."""

from __future__ import annotations

#: Seconds before the same complaint is made again.
_AGAIN = 60.0


class Complaints:
    """Remembers what was said last. Times are steady seconds."""

    def __init__(self) -> None:
        self._last = ""
        self._said_at = 0.0

    def worth_saying(self, text: str, now: float) -> bool:
        """Whether this is new, or was said long ago."""
        if text == self._last and now - self._said_at < _AGAIN:
            return False
        self._last, self._said_at = text, now
        return True

    def clear(self) -> None:
        """Things work again: the next complaint is new."""
        self._last = ""
