"""Retries parked documents, as an operator would after a fix."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from chaos.app import app
from chaos.faults import Timeline
from chaos.world import World
from readside.adapters.postgres.session import Session
from readside.core.errors import ReadsideError
from readside.operate.dead_letters import DeadLetters
from readside.wiring import store_for

_EVERY = 3.0


class Operator:
    """Retries everything that is parked, again and again."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        self._world = world
        self._timeline = timeline
        self.retried = 0
        self.applied = 0
        os.environ["CHAOS_MENDED"] = str(world.mended)

    async def work(self) -> None:
        """Look after the parked documents until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                async with asyncio.timeout(20):
                    await self.retry()
            except (ReadsideError, TimeoutError) as error:
                print(f"         operator: {error}", file=sys.stderr)

    async def retry(self) -> int:
        """Retry once; return how many documents stay parked."""
        mended = {tag for tag, (_, _, at, *_) in self._timeline.poisons.items() if at is not None}
        session = Session(self._world.dsn, "operator")
        store = store_for(self._world.servers.address("valkey"))
        letters = DeadLetters(session, "chaos")
        left = 0
        try:
            await store.open("chaos")
            for document in await letters.find():
                outcome = await letters.retry(document, app.projections[document.projection], store)
                self.retried += 1
                self.applied += outcome.applied
                left += bool(outcome.error)
            waiting = {document.key for document in await letters.find()}
        finally:
            await letters.close()
            await store.close()
        for tag in mended:
            poison = self._timeline.poisons[tag]
            if poison[0] not in waiting and len(poison) == 3:
                poison.append(time.time())
        return left
