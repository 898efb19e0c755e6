"""What a run has found, as tables for people."""

from __future__ import annotations

from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from readside.apps.bench.figures import Spread, ratios
from readside.apps.bench.growth import Grown
from readside.apps.bench.machine import warning
from readside.apps.bench.plan import PATHS
from readside.apps.bench.record import Recorded
from readside.apps.bench.report import Results, costs_of
from readside.wrappers.timed import STAGES

#: What a path is called, where its name is not enough.
_WAYS = {"frames": "nats in frames"}


def table(results: Results) -> RenderableType:
    """Everything, for people."""
    parts: list[RenderableType] = [_heading(results)]
    if results.limit:
        parts += [Text(), _drains(results)]
    if costs := costs_of(results):
        parts += [Text(), _cost_table(costs)]
    if any(results.latencies.values()):
        parts += [Text(), _latencies(results)]
        parts += [Text(), _stages(results)] if results.stages else []
    if results.record is not None:
        parts += [Text(), _record(results.record)]
    if results.growth:
        for path in results.growth[0].speeds:
            parts += [Text(), _growth(results.growth, path)]
    return Group(*parts)


def _heading(results: Results) -> Text:
    m, shape = results.machine, results.plan.backlog
    software = [f"PostgreSQL {m['postgresql']}", m["read_store"], f"Python {m['python']}"]
    software += [m["event_loop"], f"readside {m['readside']}"]
    if m["nats"]:
        software.insert(1, f"NATS {m['nats']}")
    size = [f"{shape.events:,} events of {shape.payload} bytes"]
    size += [f"{shape.per_transaction} in a transaction", f"{shape.documents:,} documents"]
    lines = [
        f"{m['cores']} cores, {m['cpu']}, {m['system']}, load before {m['load_before']}",
        ", ".join(software),
        ", ".join(size) + f"; {results.plan.rounds} rounds: medians, and lowest to highest",
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
    for path in PATHS:
        if rounds := results.drains[path]:
            speeds = [one.events_per_second for one in rounds]
            share = Spread.of(ratios(speeds, results.limit))
            startup = median(one.startup_seconds for one in rounds)
            made.add_row(
                f"{_WAYS.get(path, path)} to the read store", f"{median(speeds):,.0f}", _range(Spread.of(speeds), ",.0f"),
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
    made = _columns(
        "commit to readable", "events/s", "in a tx", "p50 ms", "p90", "p99", "p99.9", ""
    )
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


def _stages(results: Results) -> Table:
    made = _columns("where the time goes, p50 ms", *results.stages)
    for stage in STAGES:
        cells = [found.get(stage) for found in results.stages.values()]
        made.add_row(stage, *("-" if one is None else f"{one:.2f}" for one in cells))
    return made


def _growth(grown: list[Grown], path: str) -> Table:
    made = _columns(f"growth, {path}", "limit", "events/s", "of it", "cost of an event", "peak MB")
    base = grown[0].speeds[path]
    for one in grown:
        speed, peak = one.speeds[path], one.peak_memory_mb[path]
        made.add_row(
            one.name, f"{one.limit:,.0f}", f"{speed:,.0f}", f"{speed / one.limit:.2f}",
            f"{base / speed:.2f}", "-" if peak is None else f"{peak:.0f}",
        )  # fmt: skip
    return made
