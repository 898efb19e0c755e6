"""What a run has found, as one JSON document and as a table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from readside.apps.bench.drain import Drained
from readside.apps.bench.figures import Spread, ratios
from readside.apps.bench.latency import Latency
from readside.apps.bench.machine import load, warning
from readside.apps.bench.plan import HEADLINE_RATE, Plan
from readside.apps.bench.record import Recorded

_PATHS = ("direct", "nats")


@dataclass
class Results:
    """Everything that was measured; each list has one entry a round."""

    machine: dict[str, Any]
    plan: Plan
    limit: list[float] = field(default_factory=list)
    drains: defaultdict[str, list[Drained]] = field(default_factory=lambda: defaultdict(list))
    latencies: defaultdict[str, list[Latency]] = field(default_factory=lambda: defaultdict(list))
    record: Recorded | None = None
    growth: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Documents that were missing or not what they have to be."""
        found = sum(one.wrong for rounds in self.drains.values() for one in rounds)
        return found + sum(one["wrong"] for one in self.growth)


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
    for path in _PATHS:
        if rounds := results.drains[path]:
            found[path] = _path(rounds, results.limit)
    if any(results.latencies.values()):
        found["latency_ms"] = {
            path: _latency(all_rates) for path, all_rates in results.latencies.items() if all_rates
        }
    if results.record is not None:
        found["record"] = {
            "ratio": round(results.record.ratio.median, 3),
            "ratio_spread": _spread(results.record.ratio, 3),
            "tps": _spread(results.record.with_record, 0),
            "tps_without": _spread(results.record.without, 0),
        }
    if costs := _costs(results):
        found["peak_memory_mb"] = {name: cost["peak_memory_mb"] for name, cost in costs.items()}
        found["cpu_seconds_per_million"] = {
            name: cost["cpu_seconds_per_million"] for name, cost in costs.items()
        }
    if results.growth:
        found["growth"] = results.growth
    return found


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


def _costs(results: Results) -> dict[str, dict[str, float | None]]:
    """By process: relay and projector as with NATS, direct as one, servers with both paths."""
    found: dict[str, dict[str, float | None]] = {}
    million = results.plan.backlog.events / 1e6
    for path in _PATHS:
        rounds = results.drains[path]
        for name in rounds[0].costs if rounds else ():
            own = name in {"direct", "relay", "projector"}
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


def table(results: Results) -> RenderableType:
    """Everything, for people."""
    parts: list[RenderableType] = [_heading(results)]
    if results.limit:
        parts += [Text(), _drains(results)]
    if costs := _costs(results):
        parts += [Text(), _cost_table(costs)]
    if any(results.latencies.values()):
        parts += [Text(), _latencies(results)]
    if results.record is not None:
        parts += [Text(), _record(results.record)]
    return Group(*parts)


def _heading(results: Results) -> Text:
    m, shape = results.machine, results.plan.backlog
    lines = [
        f"{m['cores']} cores, {m['cpu']}, {m['system']}, load before {m['load_before']}",
        f"PostgreSQL {m['postgresql']}, NATS {m['nats'] or '-'}, {m['read_store']},"
        f" Python {m['python']}, {m['event_loop']}, readside {m['readside']}",
        f"{shape.events:,} events of {shape.payload} bytes, {shape.per_transaction} in a transaction,"
        f" {shape.documents:,} documents, {results.plan.rounds} rounds: medians (lowest to highest)",
    ]
    if text := warning(m["load_before"]):
        lines.append(text)
    return Text("\n".join(lines), style="dim")


def _columns(*names: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim")
    for number, name in enumerate(names):
        made.add_column(name, justify="right" if number else "left", no_wrap=True)
    return made


def _drains(results: Results) -> Table:
    made = _columns("backlog", "events/s", "spread", "of the limit", "starts in")
    limit = Spread.of(results.limit)
    made.add_row("limit: pg_recvlogical", f"{limit.median:,.0f}", _range(limit, ",.0f"), "1.00", "")
    for path in _PATHS:
        if rounds := results.drains[path]:
            speeds = [one.events_per_second for one in rounds]
            share = Spread.of(ratios(speeds, results.limit))
            startup = median(one.startup_seconds for one in rounds)
            made.add_row(
                f"{path} to the read store", f"{median(speeds):,.0f}", _range(Spread.of(speeds), ",.0f"),
                f"{share.median:.2f}  ({_range(share, '.2f')})", f"{startup:.1f} s",
            )  # fmt: skip
    return made


def _range(spread: Spread, form: str) -> str:
    return f"{spread.lowest:{form}} to {spread.highest:{form}}"


def _cost_table(costs: dict[str, dict[str, float | None]]) -> Table:
    made = _columns("process", "CPU s / 1M events", "peak MB")
    for name, cost in costs.items():
        cpu, peak = cost["cpu_seconds_per_million"], cost["peak_memory_mb"]
        made.add_row(
            name, "-" if cpu is None else f"{cpu:.2f}", "-" if peak is None else f"{peak:.0f}"
        )
    return made


def _latencies(results: Results) -> Table:
    made = _columns("commit to readable", "events/s", "in a tx", "p50 ms", "p90", "p99", "p99.9", "")
    for path, found in results.latencies.items():
        for one in found:
            cells = [f"{value:.1f}" for value in one.milliseconds.values()]
            held = "" if one.held else f"not held: {one.achieved:,.0f}/s"
            made.add_row(path, f"{one.rate:,}", f"{one.events_per_transaction}", *cells, held)
    return made


def _record(found: Recorded) -> Table:
    made = _columns("write side, 8 clients", "transactions/s", "spread")
    made.add_row("one row", f"{found.without.median:,.0f}", _range(found.without, ",.0f"))
    made.add_row(
        "one row, one event", f"{found.with_record.median:,.0f}", _range(found.with_record, ",.0f")
    )
    made.add_row("ratio", f"{found.ratio.median:.2f}", _range(found.ratio, ".2f"))
    return made
