"""Retries parked documents with readside's own command, as an operator would after a fix."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chaos.poisons import WANT_WROTE
from chaos.reaper import awaited
from chaos.verdicts import Verdicts
from chaos.world import World
from readside.core.folding import UNROUTED

_EVERY = 3.0
_PATIENCE = 30.0
_COMMAND = ("-m", "readside", "dead-letters", "retry", "chaos.app:app", "--all", "--json")
_LIST = ("-m", "readside", "dead-letters", "list", "chaos.app:app", "--json")


async def listed(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What readside's own command lists."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_LIST, env=environment, stdout=asyncio.subprocess.PIPE
    )
    with awaited(process.pid):
        output, _ = await process.communicate()
    found: list[dict[str, Any]] = json.loads(output)
    return found


async def check_listed(world: World, keys: Sequence[str], verdicts: Verdicts) -> None:
    """What nobody can decode is listed, for each projection that wants it, and nothing else is.

    An operator who was killed in the middle may have left something that waits for the next one.
    """
    wanted = {(projection, key) for projection in WANT_WROTE for key in keys}
    ended = time.monotonic() + _PATIENCE
    while True:
        documents = await listed(world.environment())
        found = {(one["projection"], one["key"].removeprefix(UNROUTED)) for one in documents}
        if found == wanted or time.monotonic() > ended:
            break
        await asyncio.sleep(1)
    for projection, key in sorted(wanted - found):
        verdicts.add(
            "lost", f"an event of {key} which fits no class is not listed for {projection}"
        )
    for projection, key in sorted(found - wanted):
        verdicts.add("lost", f"{projection}:{key} is still parked, and its handler was mended")


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
        with awaited(process.pid):
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
