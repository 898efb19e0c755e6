"""Moments of the flow, as readside.ports.probe names them: to look at them, and to die at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class DiedError(BaseException):
    """The process has died here; nothing after this moment happens, and nobody can catch it."""


class Recorder:
    """A listener that counts the moments that were passed."""

    def __init__(self) -> None:
        self.passed: list[str] = []

    def __call__(self, moment: str) -> None:
        self.passed.append(moment)

    def deaths(self, most: int) -> list[tuple[str, int]]:
        """Every moment with 1, 2, … as often as it was passed, up to `most` times each."""
        return [
            (moment, nth)
            for moment, count in sorted(Counter(self.passed).items())
            for nth in range(1, min(count, most) + 1)
        ]


class At:
    """A listener that does something when a moment is passed for the nth time, once.

    Args:
        moment: the moment's name.
        nth: how often it has to be passed.
        act: what to do.
    """

    def __init__(self, moment: str, nth: int, act: Callable[[], None]) -> None:
        self.moment = moment
        self.happened = False
        self._left = nth
        self._act = act

    def __call__(self, moment: str) -> None:
        if self.happened or moment != self.moment:
            return
        self._left -= 1
        if self._left == 0:
            self.happened = True
            self._act()


class DieAt(At):
    """A listener that raises when a moment is passed for the nth time, once.

    Args:
        moment: the moment's name.
        nth: how often it has to be passed.
        kill: called before the raise, to take everything else of the process along.
    """

    def __init__(self, moment: str, nth: int = 1, kill: Callable[[], None] | None = None) -> None:
        super().__init__(moment, nth, self._die)
        self._kill = kill

    def _die(self) -> None:
        if self._kill is not None:
            self._kill()
        raise DiedError(self.moment)
