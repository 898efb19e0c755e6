"""The command line of the simulation; the last line of its output is JSON."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from chaos.simulation.plan import plan
from chaos.simulation.story import Outcome, simulate
from chaos.simulation.verdict import Verdict


def main(argv: Sequence[str]) -> int:
    """Simulate seeds; 0 if no invariant was broken, else 1."""
    parser = argparse.ArgumentParser(prog="python -m chaos --simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed only, told in detail")
    parser.add_argument("--seconds", type=float, help="begin no further seed after so many seconds")
    options = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        return _report([_told(options.seed)], 0.0)
    began = time.monotonic()
    outcomes = []
    for seed in range(options.first, options.first + options.seeds):
        outcomes.append(simulate(seed))
        if outcomes[-1].failed:
            _complain(outcomes[-1])
        if options.seconds is not None and time.monotonic() - began > options.seconds:
            break
    return _report(outcomes, time.monotonic() - began)


def _told(seed: int) -> Outcome:
    drawn = plan(seed)
    for name, value in drawn._asdict().items():
        print(f"{name:12} {value}")
    outcome = simulate(seed)
    print("\n".join(outcome.did))
    _complain(outcome)
    return outcome


def _complain(outcome: Outcome) -> None:
    print(f"seed {outcome.seed}: {outcome.verdict._asdict()}")
    for problem in outcome.problems[:10]:
        print(f"  {problem}")


def _report(outcomes: Sequence[Outcome], seconds: float) -> int:
    faults: Counter[str] = Counter()
    verdict = Verdict()
    for outcome in outcomes:
        faults.update(outcome.faults)
        verdict += outcome.verdict
    failed = [outcome.seed for outcome in outcomes if outcome.failed]
    found: dict[str, Any] = {
        "seeds": len(outcomes),
        "failed": failed,
        **verdict._asdict(),
        "events": sum(outcome.events for outcome in outcomes),
        "faults": sum(faults.values()),
        "faults_by_kind": dict(sorted(faults.items())),
        "virtual_hours": round(sum(o.virtual_seconds for o in outcomes) / 3600, 2),
        "seconds": round(seconds, 2),
        "faults_per_second": round(sum(faults.values()) / seconds, 1) if seconds else None,
        "digest": outcomes[0].digest if len(outcomes) == 1 else None,
    }
    print(json.dumps(found))
    return 1 if failed else 0
