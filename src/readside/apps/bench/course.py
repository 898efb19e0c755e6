"""The course of the bench: servers, parts and rounds; what is measured side by side is compared."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psycopg
from redis import RedisError
from rich.console import Console

from readside.apps.bench.backlog import Filled, Ground, ground, tidy
from readside.apps.bench.drain import drain
from readside.apps.bench.growth import grown, shapes
from readside.apps.bench.latency import latency, stages
from readside.apps.bench.limit import limit
from readside.apps.bench.machine import machine, warning
from readside.apps.bench.places import Places, places
from readside.apps.bench.plan import HEADLINE_RATE, PATHS, Backlog, Plan, plan
from readside.apps.bench.plot import picture
from readside.apps.bench.record import record
from readside.apps.bench.report import Results, document
from readside.apps.bench.table import table
from readside.apps.demo.ticker import Ticker
from readside.apps.journal import journal
from readside.core.errors import SettingsError, UnavailableError

#: Seconds of traffic with a stopwatch.
_STAGES_SECONDS = 2.0


class Progress:
    """Says on standard error what is being done."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._part = ""
        self._began = time.perf_counter()

    def part(self, name: str) -> None:
        """Begin something else."""
        self._part = name
        self.tell("")

    def tell(self, text: str) -> None:
        """Say how far it is."""
        seconds = time.perf_counter() - self._began
        self._ticker.show(f"{seconds:5.0f} s  {self._part}  {text}", last=False)


async def bench(
    *,
    quick: bool,
    rounds: int | None,
    events: int | None,
    only: str,
    growth: bool,
    json: bool,
    plot: Path | None,
) -> int:
    """Run the bench; returns 0 unless a result is wrong."""
    chosen = plan(quick=quick, rounds=rounds, events=events, only=only, growth=growth)
    _check_writable(plot)
    journal(logging.WARNING, "%(levelname)s %(message)s")
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        async with places(
            nats=bool(chosen.parts & {"nats", "frames", "latency", "growth"})
        ) as where:
            results = Results(await machine(where), chosen)
            if text := warning(results.machine["load_before"]):
                screen.print(f"readside: {text}", style="yellow")
            with Ticker(screen) as ticker:
                async with tidy(where):
                    await _measure(where, chosen, results, Progress(ticker))
    except (psycopg.Error, RedisError, OSError, TimeoutError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UnavailableError(f"A server went away: {text}.", mend="run it again") from error
    _publish(results, json=json, plot=plot)
    return 1 if results.wrong else 0


def _check_writable(plot: Path | None) -> None:
    # Before the work, not after it.
    if plot is not None and (plot.is_dir() or not plot.absolute().parent.is_dir()):
        raise SettingsError(
            f"The picture cannot be written to {plot}.",
            mend="name a file in a folder that exists, such as bench.svg",
        )


def _publish(results: Results, *, json: bool, plot: Path | None) -> None:
    screen = Console(highlight=False)
    out = screen if screen.is_terminal else Console(highlight=False, width=200)
    out.print(table(results))
    if results.wrong:
        print(f"readside: {results.wrong} documents are wrong: this is a bug.", file=sys.stderr)
    if plot is not None:
        plot.write_text(picture(document(results)), encoding="utf-8")
    if json:
        print(msgspec.json.encode(document(results)).decode(), flush=True)


async def _measure(where: Places, chosen: Plan, results: Results, progress: Progress) -> None:
    if chosen.parts & {"limit", *PATHS}:
        async with _backlog(where, chosen.backlog, progress) as (earth, filled):
            await _drains(earth, filled, chosen, results, progress)
    if "latency" in chosen.parts:
        await _latencies(where, chosen, results, progress)
    if "record" in chosen.parts:
        progress.part("record")
        async with ground(where, chosen.backlog) as earth:
            results.record = await record(earth, chosen.rounds, chosen.record_seconds)
    if "growth" in chosen.parts:
        for name, shape in shapes(chosen.backlog).items():
            progress.part(f"growth, {name}")
            results.growth.append(await grown(where, name, shape, progress.tell))


@asynccontextmanager
async def _backlog(
    where: Places, shape: Backlog, progress: Progress
) -> AsyncIterator[tuple[Ground, Filled]]:
    progress.part("backlog")
    async with ground(where, shape) as earth:
        yield earth, await earth.fill(progress.tell)


async def _drains(
    earth: Ground, filled: Filled, chosen: Plan, results: Results, progress: Progress
) -> None:
    brokers = earth.places.brokers(*(path for path in PATHS if path in chosen.parts))
    for number in range(1, chosen.rounds + 1):
        progress.part(f"limit {number}/{chosen.rounds}")
        results.limit.append(await limit(earth, filled))
        for path, broker in brokers.items():
            progress.part(f"{path} {number}/{chosen.rounds}")
            results.drains[path].append(await drain(earth, broker, progress.tell))


async def _latencies(where: Places, chosen: Plan, results: Results, progress: Progress) -> None:
    for path, broker in where.brokers("nats", "direct").items():
        for rate in chosen.rates:
            progress.part(f"latency {path} at {rate:,} events/s")
            # A ground of its own: what was written at another rate is not to be drained again.
            async with ground(where, Backlog(0, 10_000)) as earth:
                found = await latency(earth, broker, rate, chosen.latency_seconds, progress.tell)
            results.latencies[path].append(found)
        progress.part(f"stages {path}")
        async with ground(where, Backlog(0, 10_000)) as earth:
            results.stages[path] = await stages(
                earth, broker, HEADLINE_RATE, min(_STAGES_SECONDS, chosen.latency_seconds)
            )
