"""Relay and projector in one process with a stopwatch in it: where the time between commit and document goes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable
from statistics import median

import msgspec

from readside.app import App
from readside.apps.bench import subject
from readside.apps.journal import journal
from readside.apps.process import run
from readside.ports.ending import end
from readside.service import Service
from readside.wrappers.timed import STAGES, Stopwatch

#: Seconds that are not measured.
_WARM_UP = 1.0


async def main(app: App, seconds: float) -> int:
    """Run the app for a while, and print the median of each stage in milliseconds."""
    journal(logging.INFO)
    watch = Stopwatch()
    service = Service(await app.runtime(), app.projections, watch=watch)
    roles = asyncio.create_task(service.run())
    try:
        while not watch.samples[STAGES[-1]] and not roles.done():  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.01)
        await asyncio.sleep(_WARM_UP)
        # Of use only if the machine is so busy that nothing comes after them.
        early = {stage: tuple(samples) for stage, samples in watch.samples.items()}
        watch.clear()
        await asyncio.wait({roles}, timeout=seconds)
        if roles.done():
            roles.result()
        found = {
            stage: _milliseconds(watch.samples[stage] or early[stage])
            for stage in STAGES
            if watch.samples[stage] or early[stage]
        }
        print(f"done {msgspec.json.encode(found).decode()}", flush=True)
    finally:
        await end([roles])
        await app.close()
    return 0


def _milliseconds(samples: Iterable[float]) -> float:
    return round(median(samples) * 1000, 2)


if __name__ == "__main__":
    sys.exit(run(lambda: main(subject.app, float(sys.argv[1]))))
