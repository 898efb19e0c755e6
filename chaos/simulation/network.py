"""Calls that fail before they had an effect, or after it, or take their time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from readside.core.errors import UnavailableError
from readside.testing.world import here

#: Calls that cannot fail: they are no I/O. Without a broker, those to it neither.
_SAFE = ("clock.",)
_SAFE_WITHOUT_BROKER = (*_SAFE, "broker.", "subscription.")


class Network:
    """See readside.testing.faults.Gate."""

    def __init__(
        self, chance: random.Random, faults: tuple[str, ...], rate: float, *, direct: bool
    ) -> None:
        self._chance = chance
        self._before = [fault for fault in ("refused", "slow") if fault in faults]
        self._after = [fault for fault in ("unanswered",) if fault in faults]
        self._rate = rate
        self._safe = _SAFE_WITHOUT_BROKER if direct else _SAFE
        self.calm = True
        self.happened: Counter[str] = Counter()

    def _draw(self, call: str, possible: list[str]) -> str:
        if call.startswith(self._safe) or self._chance.random() >= self._rate:
            return ""
        fault = self._chance.choice(possible)
        self.happened[fault] += 1
        return fault

    async def before(self, call: str) -> None:
        """Refuse, or let it take its time."""
        if self.calm or not self._before:
            return
        fault = self._draw(call, self._before)
        if fault == "refused":
            raise UnavailableError(f"{call} is refused to {_name()}.")
        if fault == "slow":
            await asyncio.sleep(self._chance.choice((0.01, 0.1, 1.0, 7.0)))

    async def after(self, call: str) -> None:
        """Lose the answer: what was asked for has happened."""
        if not self.calm and self._after and self._draw(call, self._after):
            raise UnavailableError(f"The answer to {call} is lost to {_name()}.")


def _name() -> str:
    process = here()
    return process.name if process else "nobody"
