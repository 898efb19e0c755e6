"""``readside status``."""

from __future__ import annotations

import asyncio
import sys

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from readside.apps.cli.target import load_app
from readside.operate.status import PartitionStatus, Status, status

_GOOD = {"following", "streaming"}
_BAD = {"lost", "slot lost", "slot missing", "never started", "not running"}


async def show(target: str, *, json: bool, watch: bool) -> int:
    """Print the status once, or again and again."""
    app = load_app(target)
    try:
        dsn = (await (await app.runtime()).addresses()).write_store
        if watch:
            await _watch(dsn, app.name, json=json)
        seen = await status(dsn, app.name)
    finally:
        await app.close()
    if json:
        print(msgspec.json.encode(seen).decode())
    else:
        Console().print(render(seen))
    return 0 if seen.healthy else 1


async def _watch(dsn: str, app: str, *, json: bool) -> None:
    if json or not sys.stdout.isatty():
        while True:
            seen = await status(dsn, app)
            print(msgspec.json.encode(seen).decode() if json else line(seen), flush=True)
            await asyncio.sleep(1.0)
    with Live(auto_refresh=False, screen=False) as live:
        while True:
            live.update(render(await status(dsn, app)), refresh=True)
            await asyncio.sleep(1.0)


def line(seen: Status) -> str:
    """One plain line."""
    parts = [
        f"{one.name} {one.state} lag {one.lag_events} events {_seconds(one.lag_seconds)} {one.rate:.0f}/s"
        for one in seen.projections
    ]
    return f"{seen.app}: relay {seen.relay.state}; " + "; ".join(parts)


def render(seen: Status) -> Group:
    """The table for a terminal."""
    relay = seen.relay
    head = Text.assemble(
        ("app ", "dim"), seen.app, ("  epoch ", "dim"), str(seen.epoch),
        ("  relay ", "dim"), (relay.state, _colour(relay.state)),
        ("  slot ", "dim"), relay.slot,
        ("  unread ", "dim"), f"{relay.unread_events} events, {_bytes(relay.behind_bytes)}",
        ("  retained WAL ", "dim"), _bytes(relay.retained_bytes),
    )  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in (
        "projection",
        "partition",
        "position",
        "applied",
        "lag",
        "lag s",
        "rate/s",
        "parked",
        "state",
    ):
        table.add_column(column, justify="left" if column in ("projection", "state") else "right")
    for projection in seen.projections:
        for number, part in enumerate(projection.partitions):
            table.add_row(*_row(projection.name if number == 0 else "", part))
    return Group(head, table)


def _row(name: str, part: PartitionStatus) -> list[str | Text]:
    state = f"{part.state}: {part.detail}" if part.detail else part.state
    return [
        name,
        str(part.partition),
        part.position,
        f"{part.applied:,}",
        f"{part.lag_events:,}",
        _seconds(part.lag_seconds),
        f"{part.rate:,.0f}",
        str(part.parked_documents),
        Text(state, style=_colour(part.state)),
    ]


def _colour(state: str) -> str:
    if state in _GOOD:
        return "green"
    return "red" if state in _BAD else "yellow"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def _bytes(value: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"
