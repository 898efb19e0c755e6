"""The command line of the simulation; the last line of its output is JSON."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from chaos.simulation.every_death import every_death
from chaos.simulation.pace import Pace
from chaos.simulation.plan import Plan, plan
from chaos.simulation.shrinking import smallest
from chaos.simulation.story import Outcome, simulate
from chaos.simulation.verdict import Verdict
from chaos.simulation.workers import outcomes


def main(argv: Sequence[str]) -> int:
    """Simulate seeds; 0 if no invariant was broken, else 1; 130 where it was interrupted."""
    options = _parse(argv)
    logging.disable(logging.CRITICAL)
    if options.every_death:
        return every_death()
    if options.seed is not None:
        drawn = plan(options.seed)
        if options.shrink:
            drawn = _shrunk(options.seed, drawn)
        sums = Sums()
        sums.add(_told(options.seed, drawn))
        return sums.report(0.0, 0.0)
    seeds = range(options.first, options.first + options.seeds)
    pace = Pace(len(seeds), options.seconds)
    sums = Sums()
    with _interruptible() as interrupted:
        running = outcomes(_while(seeds, pace), options.jobs)
        with contextlib.closing(running):
            for outcome in running:
                sums.add(outcome)
                if outcome.failed:
                    _complain(outcome)
                pace.tell(sums.seeds, sums.faults.total(), len(sums.failed))
                if interrupted:
                    break
    code = sums.report(pace.seconds, pace.cpu_seconds)
    return code or (130 if interrupted else 0)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos --simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed only, told in detail")
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="of a --seed that fails, leave out what it does not need to fail",
    )
    parser.add_argument("--seconds", type=float, help="begin no further seed after so many seconds")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="seeds at a time (all cores)"
    )
    parser.add_argument(
        "--every-death",
        action="store_true",
        help="no seeds: one short story, with a death at each of its I/O boundaries",
    )
    options = parser.parse_args(argv)
    if options.shrink and options.seed is None:
        parser.error("--shrink needs the --seed that fails")
    return options


def _while(seeds: Sequence[int], pace: Pace) -> Iterator[int]:
    for seed in seeds:
        if pace.over:
            return
        yield seed


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C, and SIGTERM likewise, end the run after the seed that is under way; a list of them."""
    came: list[int] = []
    caught = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in caught]
    try:
        yield came
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)


def _shrunk(seed: int, drawn: Plan) -> Plan:
    if not simulate(seed, drawn).failed:
        print(f"seed {seed} does not fail: nothing is left out")
        return drawn
    return smallest(drawn, lambda smaller: simulate(seed, smaller).failed)


def _told(seed: int, drawn: Plan) -> Outcome:
    for name, value in drawn._asdict().items():
        print(f"{name:12} {value}")
    outcome = simulate(seed, drawn)
    print("\n".join(outcome.did))
    _complain(outcome)
    return outcome


def _complain(outcome: Outcome) -> None:
    print(f"seed {outcome.seed}: {outcome.verdict._asdict()}")
    for problem in outcome.problems[:10]:
        print(f"  {problem}", flush=True)


class Sums:
    """What many runs come to."""

    def __init__(self) -> None:
        self.seeds = 0
        self.faults: Counter[str] = Counter()
        self.failed: list[int] = []
        self._verdict = Verdict()
        self._events = 0
        self._virtual_seconds = 0.0
        self._digests = hashlib.sha256()
        self._digest = ""

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.seeds += 1
        self.faults.update(outcome.faults)
        self._verdict += outcome.verdict
        self._events += outcome.events
        self._virtual_seconds += outcome.virtual_seconds
        self._digests.update(outcome.digest.encode())
        self._digest = outcome.digest if self.seeds == 1 else self._digests.hexdigest()[:16]
        if outcome.failed:
            self.failed.append(outcome.seed)

    def report(self, seconds: float, cpu_seconds: float) -> int:
        """Print it as JSON; 1 if an invariant was broken, else 0."""
        found: dict[str, Any] = {
            "seeds": self.seeds,
            "failed": self.failed,
            **self._verdict._asdict(),
            "events": self._events,
            "faults": self.faults.total(),
            "faults_by_kind": dict(sorted(self.faults.items())),
            "virtual_hours": round(self._virtual_seconds / 3600, 2),
            "seconds": round(seconds, 2),
            "faults_per_second": round(self.faults.total() / seconds, 1) if seconds else None,
            "cpu_seconds": round(cpu_seconds, 2),
            "faults_per_cpu_second": (
                round(self.faults.total() / cpu_seconds, 1) if cpu_seconds else None
            ),
            # The same for the same seeds, whatever the machine and the number of jobs.
            "digest": self._digest,
        }
        print(json.dumps(found))
        return 1 if self.failed else 0
