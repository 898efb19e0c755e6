"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Backoff:
    """Exponential backoff with full jitter (AWS Architecture Blog, 2015), without an end."""

    first: float = 0.05
    longest: float = 2.0
    tries: int = 0

    def next(self, chance: float) -> float:
        """Seconds to wait now; `chance` is a random number in [0, 1) from the caller."""
        ceiling = min(self.longest, self.first * 2.0 ** min(self.tries, 16))
        self.tries += 1
        return ceiling * (0.5 + chance / 2)

    def reset(self) -> None:
        """Begin again, after a success."""
        self.tries = 0
