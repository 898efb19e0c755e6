"""Says a thing once, and again only after a while: a log that repeats itself is not read."""

from __future__ import annotations

#: Seconds before the same complaint is made again.
_AGAIN = 60.0
#: Complaints remembered at once.
_MOST = 64


class Complaints:
    """Remembers what was said, for everybody who shares it. Times are steady seconds."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def worth_saying(self, text: str, now: float) -> bool:
        """Whether this is new, or was said long ago."""
        said_at = self._said.get(text)
        if said_at is not None and now - said_at < _AGAIN:
            return False
        if len(self._said) >= _MOST:
            self._said.pop(next(iter(self._said)))
        self._said[text] = now
        return True

    def clear(self) -> bool:
        """Things work again: the next complaint is new. Returns whether there was any."""
        had_any = bool(self._said)
        self._said.clear()
        return had_any
