"""What was done in a run, and when."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import Any

from chaos.plan import Fault

#: Seconds for which a fault that had no effect is tried again.
_LONG_ENOUGH = 8.0


async def last(seconds: float, stopping: asyncio.Event) -> None:
    """Wait as long as a fault lasts, or until all is to be healed."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        pass


class Timeline:
    """What was done and what came of it."""

    def __init__(self) -> None:
        self.began = time.time()
        #: time, kind, target, effect, words.
        self.entries: list[tuple[float, str, str, int, str]] = []
        #: Windows in which the read store may go back.
        self.windows: list[tuple[float, float]] = []
        #: Poisons: tag -> key and time of commit, and of the mend.
        self.poisons: dict[str, list[Any]] = {}
        #: Keys of events which nobody can decode: they have to be listed in the end.
        self.undecodable: list[str] = []

    def note(self, fault: Fault, effect: int, words: str) -> None:
        """Write down what a fault did; also for people."""
        at = time.time() - self.began
        self.entries.append((round(at, 2), fault.kind, fault.target, effect, words))
        print(
            f"{at:6.1f}s  {fault.kind:18} {fault.target:10} {fault.duration:4.1f}s  {words}",
            file=sys.stderr,
            flush=True,
        )

    def without_effect(self) -> dict[str, tuple[str, str, float]]:
        """Kinds that were struck and never had an effect: kind, target and seconds of one of each."""
        felt: Counter[str] = Counter()
        for _, kind, _, effect, _ in self.entries:
            felt[kind] += effect
        return {
            kind: (kind, target, _LONG_ENOUGH)
            for _, kind, target, *_ in self.entries
            if not felt[kind]
        }


def say(words: str) -> None:
    """Tell the people who watch."""
    print(words, file=sys.stderr, flush=True)
