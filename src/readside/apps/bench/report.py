"""What a run has found, as one JSON document."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from readside.apps.bench.drain import Drained
from readside.apps.bench.figures import Spread, ratios
from readside.apps.bench.growth import Grown
from readside.apps.bench.latency import Latency
from readside.apps.bench.machine import load
from readside.apps.bench.plan import HEADLINE_RATE, PATHS, Plan
from readside.apps.bench.record import Recorded


@dataclass
class Results:
    """Everything that was measured; each list has one entry a round."""

    machine: dict[str, Any]
    plan: Plan
    limit: list[float] = field(default_factory=list)
    drains: defaultdict[str, list[Drained]] = field(default_factory=lambda: defaultdict(list))
    latencies: defaultdict[str, list[Latency]] = field(default_factory=lambda: defaultdict(list))
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    record: Recorded | None = None
    growth: list[Grown] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Documents that were missing or not what they have to be."""
        found = sum(one.wrong for rounds in self.drains.values() for one in rounds)
        return found + sum(one.wrong for one in self.growth)


def document(results: Results) -> dict[str, Any]:
    """Everything, for scripts."""
    shape = results.plan.backlog
    found: dict[str, Any] = {
        "machine": results.machine | {"load_after": round(load(), 2)},
        "events": shape.events,
        "documents": shape.documents,
        "payload_bytes": shape.payload,
        "rounds": results.plan.rounds,
        "wrong_documents": results.wrong,
    }
    if results.limit:
        found["limit_eps"] = round(median(results.limit))
        found["limit"] = _spread(Spread.of(results.limit), 0)
    for path in PATHS:
        if rounds := results.drains[path]:
            found[path] = _path(rounds, results.limit)
    if any(results.latencies.values()):
        found["latency_ms"] = {
            path: _latency(rates) | {"stages_p50": results.stages.get(path, {})}
            for path, rates in results.latencies.items()
        }
    if results.record is not None:
        found["record"] = {
            "ratio": round(results.record.ratio.median, 3),
            "ratio_spread": _spread(results.record.ratio, 3),
            "tps": _spread(results.record.with_record, 0),
            "tps_without": _spread(results.record.without, 0),
        }
    if costs := costs_of(results):
        found["peak_memory_mb"] = {name: cost["peak_memory_mb"] for name, cost in costs.items()}
        found["cpu_seconds_per_million"] = {
            name: cost["cpu_seconds_per_million"] for name, cost in costs.items()
        }
    if results.growth:
        found["growth"] = [_growth(one, results.growth[0]) for one in results.growth]
    return found


def _growth(one: Grown, base: Grown) -> dict[str, Any]:
    return {
        "name": one.name,
        **one.shape._asdict(),
        "limit_eps": round(one.limit),
        "wrong": one.wrong,
        **{
            path: {
                "eps": round(speed),
                "ratio": round(speed / one.limit, 3),
                "cost_per_event": round(base.speeds[path] / speed, 2),
                "peak_memory_mb": one.peak_memory_mb[path],
            }
            for path, speed in one.speeds.items()
        },
    }


def _path(rounds: list[Drained], limit: list[float]) -> dict[str, Any]:
    speeds = [one.events_per_second for one in rounds]
    shares = ratios(speeds, limit)
    return {
        "eps": round(median(speeds)),
        "ratio": round(median(shares), 3),
        "eps_spread": _spread(Spread.of(speeds), 0),
        "ratio_spread": _spread(Spread.of(shares), 3),
        "startup_seconds": round(median(one.startup_seconds for one in rounds), 2),
    }


def _latency(found: list[Latency]) -> dict[str, Any]:
    headline = next((one for one in found if one.rate == HEADLINE_RATE), found[0])
    rates = [
        {
            "rate": one.rate,
            "events_per_transaction": one.events_per_transaction,
            "achieved": one.achieved,
            "held": one.held,
            "writers_late_ms_p99": one.writers_late_ms_p99,
            **one.milliseconds,
        }
        for one in found
    ]
    return headline.milliseconds | {"rate": headline.rate, "rates": rates}


def costs_of(results: Results) -> dict[str, dict[str, float | None]]:
    """By process: relay and projector as with NATS, direct as one; the others with their path."""
    found: dict[str, dict[str, float | None]] = {}
    million = results.plan.backlog.events / 1e6
    for path in PATHS:
        rounds = results.drains[path]
        for name in rounds[0].costs if rounds else ():
            own = path != "frames" and name in {"direct", "relay", "projector"}
            cpu = [one.costs[name].cpu_seconds for one in rounds]
            peak = [one.costs[name].peak_memory_mb for one in rounds]
            found[name if own else f"{name}_{path}"] = {
                "cpu_seconds_per_million": _known_median(cpu, million),
                "peak_memory_mb": max((one for one in peak if one is not None), default=None),
            }
    return found


def _known_median(values: list[float | None], divisor: float) -> float | None:
    known = [one for one in values if one is not None]
    return round(median(known) / divisor, 2) if known else None


def _spread(found: Spread, digits: int) -> list[float]:
    lowest, highest = round(found.lowest, digits), round(found.highest, digits)
    return [lowest, highest]
