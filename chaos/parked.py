"""Retries parked documents with readside's own command, as an operator would after a fix."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chaos.world import World

_EVERY = 3.0
_PATIENCE = 30.0
_COMMAND = ("-m", "readside", "dead-letters", "retry", "chaos.app:app", "--all", "--json")


class Operator:
    """Retries everything that is parked, again and again; now and then is killed while at it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = random.Random(f"operator {world.options.seed}")
        self.retried = 0
        self.applied = 0
        self.killed = self.refused = 0

    async def work(self) -> None:
        """Look after the parked documents until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.retry()

    async def retry(self) -> None:
        """Retry once."""
        hurry = self._chance.random() < 0.25
        async with self._process() as process:
            try:
                async with asyncio.timeout(self._chance.uniform(0.3, 1.0) if hurry else _PATIENCE):
                    output, _ = await process.communicate()
            except TimeoutError:
                self.killed += 1
                return
        try:
            outcomes = json.loads(output)
        except ValueError:
            self.refused += 1  # PostgreSQL or the read store is away; its log says so
            return
        self.retried += len(outcomes)
        self.applied += sum(outcome["applied"] for outcome in outcomes)

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[Any]:
        with (self._world.directory / "operator.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_COMMAND,
                env=self._world.environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
