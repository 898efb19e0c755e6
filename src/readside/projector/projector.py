"""The projectors of one process: takes its share of partitions, and keeps a lane running for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from readside.core.errors import ReadsideError
from readside.core.leases import Unit
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection
from readside.ports.ending import end
from readside.ports.ledger import Lease, Progress
from readside.projector.lane import Lane
from readside.projector.surroundings import Surroundings

log = logging.getLogger("readside.projector")

#: Seconds between two looks at the leases, at most.
_TEND_EVERY = 1.5
#: Seconds between two reports of progress.
_REPORT_EVERY = 0.25


class Projector:
    """Works on units of one app while it lives.

    Args:
        projections: what to keep in step, by name.
        around: what the lanes work with.
        partitions: how many there are.
        alone: take everything; something else elects the one process that works.
        lease_seconds: how long a lease lasts; it is renewed three times as often.
    """

    def __init__(
        self,
        projections: Mapping[str, Projection[Any]],
        around: Surroundings,
        partitions: int,
        *,
        alone: bool = False,
        lease_seconds: float = 3 * _TEND_EVERY,
    ) -> None:
        self._worker = around.worker
        self._projections = projections
        units = len(projections) * partitions
        self._around = replace(around, limits=around.limits.shared(units))  # it may get all of them
        self._leases = around.leases
        self._lanes: dict[Unit, tuple[Lane, asyncio.Task[None]]] = {}
        self._alone = alone
        self._tend_every = min(_TEND_EVERY, lease_seconds / 3)
        self._tended: dict[Unit, tuple[Lane, int]] = {}
        self._reported: dict[Unit, tuple[Progress, int, float]] = {}
        self._partitions = range(partitions)
        self._units = [Unit(name, number) for name in projections for number in self._partitions]
        #: Set when the lanes of the first assignment run.
        self.ready = asyncio.Event()

    @property
    def applied(self) -> int:
        """Events applied by the lanes that run now."""
        return sum(lane.applied for lane, _ in self._lanes.values())

    async def run(self, elected: Callable[[], bool] = lambda: True) -> None:
        """Work until cancelled; then give the units back.

        Args:
            elected: whether this process may have units at all.
        """
        reporter = asyncio.ensure_future(self._report())
        try:
            while True:
                try:
                    await (self._tend() if elected() else self._retire())
                except ReadsideError as error:
                    if self._around.complaints.worth_saying(str(error), self._around.clock.now()):
                        log.warning("leases cannot be renewed: %s", error)
                await self._around.clock.sleep(self._tend_every)
        finally:
            await end([reporter, *(task for _, task in self._lanes.values())])
            try:
                async with asyncio.timeout(1):
                    await self._leases.leave(self._worker)
            except (ReadsideError, TimeoutError) as error:
                log.info("leases run out by themselves: %s", error)

    async def close(self) -> None:
        """End the lanes of a projector that was seized for, and never ran."""
        await end(task for _, task in self._lanes.values())

    async def _tend(self) -> None:
        lanes = {unit: (lane, lane.applied) for unit, (lane, _) in self._lanes.items()}
        thriving = [unit for unit, now in lanes.items() if now[1] and now != self._tended.get(unit)]
        leases = await self._leases.tend(
            self._worker, self._units, thriving=thriving, alone=self._alone
        )
        self._tended = lanes
        await self._assign(leases)

    async def _retire(self) -> None:
        """Give everything back at once: something else has elected another process."""
        if self._lanes:
            await self._assign([])
            await self._leases.leave(self._worker)

    async def seize(self) -> None:
        """Take all units at once, because something else has elected this process.

        Those which a reset holds come later, by `run`; their lanes wish for what they have missed.
        Returns when the lanes listen to the broker, or have had two seconds to do so.
        """
        await self._assign(await self._leases.seize(self._worker, self._units))
        listening = [
            asyncio.ensure_future(lane.subscribed.wait()) for lane, _ in self._lanes.values()
        ]
        if not listening:
            return
        try:
            await asyncio.wait(listening, timeout=2.0)
        finally:
            await end(listening)

    async def newest(self) -> Position:
        """The newest position that the read store has of any projection.

        Raises:
            UnavailableError: the store is away, and nobody else knows.
        """
        found = [
            await self._around.store.checkpoints(name, self._partitions)
            for name in self._projections
        ]
        reached = [one.position for some in found for one in some.values()]
        return max(reached, default=BEGINNING)

    async def _assign(self, leases: list[Lease]) -> None:
        held = {lease.unit: lease for lease in leases}
        await self._stop(
            [
                unit
                for unit, (lane, task) in self._lanes.items()
                if task.done() or unit not in held or held[unit].token != lane.lease.token
            ]
        )
        for unit, lease in held.items():
            if unit not in self._lanes:
                self._start(unit, lease)
        self.ready.set()

    def _start(self, unit: Unit, lease: Lease) -> None:
        lane = Lane(lease, self._projections[unit.projection], self._around)
        self._lanes[unit] = (lane, asyncio.ensure_future(lane.run()))

    async def _stop(self, units: list[Unit]) -> None:
        stopped = [self._lanes.pop(unit) for unit in units]
        outcomes = await end(task for _, task in stopped)
        for (lane, _), outcome in zip(stopped, outcomes, strict=True):
            if outcome is not None:
                log.error("lane %s died: %r", lane.lease.unit, outcome, exc_info=outcome)

    async def _report(self) -> None:
        while True:
            now = self._around.clock.now()
            due: list[tuple[Unit, Progress, int]] = []
            for unit, (lane, _) in self._lanes.items():
                before = self._reported.get(unit)
                rate = 0.0
                if before is not None and now > before[2]:
                    rate = max(0.0, (lane.applied - before[1]) / (now - before[2]))
                progress = lane.progress(round(rate, 1))
                if progress is not None and (before is None or before[0] != progress):
                    due.append((unit, progress, lane.applied))
            try:
                await self._around.ledger.report([progress for _, progress, _ in due])
                for unit, progress, applied in due:
                    self._reported[unit] = (progress, applied, now)
            except ReadsideError as error:
                log.debug("progress is not reported: %s", error)
            except Exception as error:  # or the status would show old states for good
                if self._around.complaints.worth_saying(f"report {error!r}", now):
                    log.exception("progress is not reported")
            await self._around.clock.sleep(_REPORT_EVERY)
