"""People who call readside's commands while all this happens; their processes die and freeze, too."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from chaos.simulation.operator import Operator
from readside.ports.probe import listening
from readside.testing.moments import At, DieAt
from readside.testing.world import World

#: Moments at which a person's command can die, or freeze.
_MOMENTS = (
    "dead_letters.folded",
    "dead_letters.freed",
    "reset.seized",
    "reset.begun",
    "reset.emptied",
)
#: Seconds that it is frozen: within the lease of a reset, and beyond.
_FREEZES = (3.0, 40.0, 90.0)
_MOST = 2


class Callers:
    """Calls the commands, at most two at a time.

    Args:
        world: where.
        chance: where chance comes from.
        note: called with what happened.
        emptied: called when a projection was reset.
    """

    def __init__(
        self,
        world: World,
        chance: random.Random,
        note: Callable[[str], None],
        emptied: Callable[[], None],
    ) -> None:
        self._world = world
        self._chance = chance
        self._note = note
        self._emptied = emptied
        self._operators: list[Operator] = []
        self._called = 0

    async def retry(self) -> None:
        """``readside dead-letters retry --all``, if there is anything to retry."""
        if self._world.database.tables.parked_documents:
            await self._operate("retry", Operator.retry_all)

    async def discard(self) -> None:
        """``readside dead-letters discard``, and perhaps a retry of the same document."""

        async def job(operator: Operator) -> None:
            documents = operator.documents()
            if documents:
                document = self._chance.choice(documents)
                await operator.discard(document, whole=self._chance.random() < 0.3)
                if self._chance.random() < 0.5:  # else later events come in behind what is given up
                    await operator.retry(document)

        if self._world.database.tables.parked_documents:
            await self._operate("discard", job)

    async def give_up(self) -> None:
        """``readside reset --give-up``."""
        name = self._chance.choice(sorted(self._world.projections))

        async def job(operator: Operator) -> None:
            await operator.give_up(name)
            self._emptied()

        await self._operate("give_up", job)

    async def retire(self) -> None:
        """Send everybody home."""
        for operator in self._operators:
            await operator.kill()
        self._operators.clear()

    async def _operate(self, name: str, job: Callable[[Operator], Awaitable[None]]) -> None:
        self._operators = [operator for operator in self._operators if not operator.ended]
        if len(self._operators) >= _MOST:
            return
        self._called += 1
        operator = Operator(self._world, f"operator-{self._called}")
        self._operators.append(operator)
        self._note(name)
        chance = self._chance
        moment, nth = chance.choice(_MOMENTS), chance.randint(1, 2)
        death = DieAt(moment, nth, self._world.die)
        sleep = At(moment, nth, operator.life.freeze)
        fate = chance.random()
        listener = death if fate < 0.4 else sleep if fate < 0.7 else None
        with listening(listener) if listener else contextlib.nullcontext():
            operator.start(lambda: job(operator))
            await operator.wait(chance.choice((0.0, 0.5, 5.0)))
        if death.happened:
            self._note(f"{name}_dies")
        if sleep.happened:
            self._note(f"{name}_freezes")
            seconds = chance.choice(_FREEZES)
            asyncio.get_running_loop().call_later(seconds, operator.life.thaw)
        await self._world.revive()
