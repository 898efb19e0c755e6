"""One run: start, strike, heal, wait, judge."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from chaos.encore import effects, encore
from chaos.ending import catch_up, end_observers, end_writers, sightings
from chaos.faults import Faults
from chaos.figures import figures, let_go, memory
from chaos.frames import count
from chaos.options import Options
from chaos.oracle import Oracle, read_oracle
from chaos.parked import Operator, check_listed
from chaos.plan import LONG, ROOM, Fault, make_plan, steady_from
from chaos.reaper import adopt_orphans
from chaos.report import LET_GO, Report, save
from chaos.timeline import Timeline, say
from chaos.verdicts import Verdicts
from chaos.world import World

_SETTLE = 2.0
_SNAPSHOT_EVERY = 4.0
_RATE_EVERY = 5.0
#: Seconds after which a repeated fault waits for nothing any more.
_ENCORE = 120.0
#: Seconds of the part without kills until everything is warm, and of quiet at the end of a long run.
_WARM = 20.0
_QUIET = 10.0
_MEMORY_EVERY = 60.0
#: What the servers have written: of no use to whoever looks for what went wrong.
_FILES = ("postgres", "nats", "nats-copy-*", "valkey", "*.rdb", "tables", "tables-copy-*")


@dataclass
class Outcome:
    """What a run has found."""

    oracle: Oracle
    verdicts: Verdicts
    seen: Counter[str]
    #: Seconds until the read side had caught up; None if it never did.
    caught_up: float | None
    #: Effects for which a fault was repeated when the plan was over, and how often.
    repeated: Counter[str]
    before: dict[str, Any] = field(default_factory=dict)
    #: In the part without kills, when everything is warm; only in long runs.
    warm: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    #: Kilobytes that each process had at second `at`, from `warm` on.
    memory: list[dict[str, int]] = field(default_factory=list)


async def run(options: Options) -> int:
    """Run once; returns the exit code: 0 clean, 1 wrong, 2 invalid."""
    adopt_orphans()
    directory = Path(tempfile.mkdtemp(prefix="readside-chaos-"))
    world = World(options, directory)
    timeline = Timeline()
    report: Report | None = None
    try:
        await world.start()
        say(f"seed {options.seed}, {options.setup}, {world.regime}; artefacts in {directory}")
        outcome = await _Run(world, timeline).go()
        found = effects(world) | {"frames": await count(world) if options.frames else 0}
        report = Report(options, timeline, outcome, found, world)
        return report.code
    finally:
        if report is None or report.code:
            save(directory, world.dsn, timeline, report)
        world.stop()
        if report is not None:
            report.show(directory)
        _tidy(directory, options.keep, failed=report is None or report.code != 0)


def _tidy(directory: Path, keep: Path | None, *, failed: bool) -> None:
    if keep is not None:
        shutil.copytree(
            directory,
            keep,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(*_FILES),
        )
    if failed:
        for place in [found for pattern in _FILES for found in directory.glob(pattern)]:
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink()
        say(f"artefacts are in {keep or directory}")
    if keep is not None or not failed:
        shutil.rmtree(directory, ignore_errors=True)


class _Run:
    """The phases of a run."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        self._world = world
        self._timeline = timeline
        self._options = world.options
        self._stopping = asyncio.Event()
        self._operator = Operator(world)
        self._repeated: Counter[str] = Counter()
        self._warm: dict[str, Any] = {}
        self._memory: list[dict[str, int]] = []

    async def go(self) -> Outcome:
        """Do everything, and judge."""
        await asyncio.sleep(_SETTLE)
        before = figures(self._world)
        helpers = [
            asyncio.create_task(self._tend()),
            asyncio.create_task(self._snapshots()),
            asyncio.create_task(self._rates()),
            asyncio.create_task(self._measure()),
        ]
        if not self._world.setup.inline:  # nothing is ever parked there
            helpers.append(asyncio.create_task(self._operator.work()))
        try:
            await self._strike()
            say("healing: nothing fails from now on")
            await self._end_writers()
            caught_up, verdicts = await catch_up(self._world)
            if not self._world.setup.inline:
                await check_listed(self._world, self._timeline.undecodable, verdicts)
            await self._check_helpers(helpers)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        if self._options.seconds >= LONG:
            await asyncio.sleep(_QUIET)
            if self._world.regime.settle_delay < LET_GO:  # else WAL is kept on purpose
                await asyncio.to_thread(let_go, self._world.dsn, LET_GO)
        after = figures(self._world)
        end_observers(self._world)
        oracle = read_oracle(self._world.dsn)
        seen = self._sightings(oracle, verdicts)
        return Outcome(
            oracle,
            verdicts,
            seen,
            caught_up,
            self._repeated,
            before,
            self._warm,
            after,
            self._memory,
        )

    async def _check_helpers(self, helpers: list[asyncio.Task[None]]) -> None:
        for helper in helpers:
            if helper.done():
                helper.result()

    async def _strike(self) -> None:
        options = self._options
        plan = make_plan(options.seconds, options.seed, options.setup, options.only)
        self._timeline.began = began = time.time()
        faults = Faults(self._world, self._timeline, self._stopping)
        tasks: list[asyncio.Task[None]] = []
        for fault in plan:
            await asyncio.sleep(max(0.0, began + fault.at - time.time()))
            tasks.append(asyncio.create_task(self._one(faults, fault)))
        await asyncio.sleep(max(0.0, began + options.seconds - time.time()))
        self._stopping.set()
        await asyncio.gather(*tasks)
        if options.seconds >= ROOM and not options.only:
            enough = asyncio.Event()
            asyncio.get_running_loop().call_later(_ENCORE, enough.set)
            late = Faults(self._world, self._timeline, enough)
            self._repeated = await encore(self._world, self._timeline, late)

    async def _one(self, faults: Faults, fault: Fault) -> None:
        try:
            await faults.strike(fault)
        except (OSError, psycopg.Error) as error:
            self._timeline.note(fault, 0, f"could not be done: {error!r}")

    async def _tend(self) -> None:
        while True:
            for name in self._world.tend():
                say(f"         {name} ended by itself and was started again")
            await asyncio.sleep(0.3)

    async def _snapshots(self) -> None:
        for number in itertools.count():
            if "store" in self._world.regime.wipes or self._options.store == "valkey":
                await asyncio.to_thread(self._world.servers.snapshot)
            if number % 3 == 0 and "broker" in self._world.regime.wipes:
                await asyncio.to_thread(self._world.servers.copy_log)
            await asyncio.sleep(_SNAPSHOT_EVERY)
            if self._stopping.is_set():
                return

    async def _measure(self) -> None:
        """Take the figures with which those of the end are compared."""
        at = steady_from(self._options.seconds) + _WARM
        if at < self._options.seconds:
            await asyncio.sleep(at)
            self._warm = await asyncio.to_thread(figures, self._world)
            while True:
                passed = round(time.time() - self._timeline.began)
                self._memory.append({"at": passed, **memory(self._world)})
                await asyncio.sleep(_MEMORY_EVERY)

    async def _rates(self) -> None:
        last = 0
        while not self._stopping.is_set():
            await asyncio.sleep(_RATE_EVERY)
            try:
                async with asyncio.timeout(3):
                    connection: Any = await psycopg.AsyncConnection.connect(
                        self._world.dsn, connect_timeout=2
                    )
                    async with connection:
                        found = await connection.execute("SELECT sum(version) FROM chaos.keys")
                        total = int((await found.fetchone())[0])
            except (psycopg.Error, TimeoutError, OSError):
                say("         PostgreSQL does not answer")
                continue
            say(f"         {total} events committed, {(total - last) / _RATE_EVERY:.0f}/s")
            last = total

    async def _end_writers(self) -> None:
        await end_writers(self._world)
        for tag in self._timeline.poisons:
            (self._world.mended / tag).touch()
            self._timeline.poisons[tag][2] = self._timeline.poisons[tag][2] or time.time()

    def _sightings(self, oracle: Oracle, verdicts: Verdicts) -> Counter[str]:
        seen = sightings(self._world, oracle, self._timeline.windows, verdicts)
        seen["parked_documents_retried"] = self._operator.retried
        seen["parked_events_applied_by_retry"] = self._operator.applied
        seen["operators_refused"] = self._operator.refused
        seen["operators_killed"] = self._operator.killed
        with suppress(KeyError):
            del seen[""]
        return seen
