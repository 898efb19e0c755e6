"""The status of an app as people read it."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from readside.operate.status import PartitionStatus, ProjectionStatus, Status

_GOOD = {"following", "streaming", "starting", "inline"}
_BAD = {"lost", "slot lost", "slot missing", "never started", "not running"}
#: Below this width, what can be done without is left out.
_WIDE = 100
#: Lines around the rows: two of heading, an empty one, the columns' names, two of advice.
_AROUND = 7
#: Rows where there is no screen that could be too small.
_ROWS_IN_A_PIPE = 40


def plain_console() -> Console:
    """Standard output: as wide as the terminal, and never wrapped in a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def render(seen: Status, target: str, console: Console, *, every_partition: bool) -> Group:
    """Heading, a row for each projection and, if the screen holds them, for each partition."""
    room = console.height - _AROUND if console.is_terminal else _ROWS_IN_A_PIPE
    rows = sum(1 + len(projection.partitions) for projection in seen.projections)
    return Group(
        *_heading(seen),
        Text(),
        _table(seen, wide=console.width >= _WIDE, all_rows=every_partition or rows <= room),
        *(Text(line, style="yellow") for line in advice(seen, target)),
    )


def line(seen: Status) -> str:
    """Everything in one plain line."""
    parts = [
        f"{one.name} {one.state}, lag {one.lag_events} events, {_late(one.lag_seconds)},"
        f" {one.rate:.0f}/s"
        for one in seen.projections
    ]
    return "; ".join([f"relay {seen.relay.state}", *parts])


def advice(seen: Status, target: str) -> list[str]:
    """What a person can do about what is not well."""
    found = []
    relay = seen.relay.state
    if not seen.projections:
        found.append("no projection has been here yet")
    if relay == "not running" or not seen.projections:
        found.append(f"start it: readside run {target}")
    elif any(one.state in {"never started", "not running"} for one in seen.projections):
        found.append(f"projections without a worker; start one: readside run {target}")
    if seen.relay.held_up_by:
        found.append(
            f"this transaction keeps PostgreSQL from forgetting WAL: {seen.relay.held_up_by}"
        )
    if relay in {"slot missing", "slot lost"} or any(
        one.state == "lost" for one in seen.projections
    ):
        found.append("history is lost, projections have to be rebuilt: docs/failure-modes.md")
    return found


def _heading(seen: Status) -> list[Text]:
    relay = seen.relay
    first = Text.assemble(
        ("app ", "dim"), (seen.app, "bold"), ("  relay ", "dim"), (relay.state, _colour(relay.state)),
        ("  slot ", "dim"), relay.slot, no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    second = Text.assemble(
        ("unread ", "dim"), f"{relay.unread_events:,} events, {_bytes(relay.behind_bytes)}",
        ("  WAL kept ", "dim"), _bytes(relay.retained_bytes),
        ("  epoch ", "dim"), str(seen.epoch), no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    return [first, second]


def _table(seen: Status, *, wide: bool, all_rows: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    parked = any(one.parked_documents for one in seen.projections)
    table.add_column("projection", no_wrap=True, max_width=None if wide else 14)
    table.add_column("part", justify="right", no_wrap=True)
    table.add_column("position", no_wrap=True, max_width=None if wide else 16)
    names = [*(["applied"] if wide else []), "lag", "late", "rate", *(["parked"] if parked else [])]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, overflow="ellipsis", min_width=len("never started"))
    for projection in seen.projections:
        shown = [
            part
            for part in projection.partitions
            if all_rows or part.state not in _GOOD or part.parked_documents
        ]
        for cells in (_total(projection), *(_part(part, seen.epoch) for part in shown)):
            table.add_row(
                *(cells[name] for name in ("projection", "part", "position", *names, "state"))
            )
    return table


def _total(one: ProjectionStatus) -> dict[str, RenderableType]:
    return {
        "projection": Text(one.name, style="bold"),
        "part": f"{len(one.partitions)}",
        "position": Text("all", style="dim"),
        "applied": _number(sum(part.applied for part in one.partitions)),
        "lag": _number(one.lag_events),
        "late": _late(one.lag_seconds),
        "rate": f"{_number(one.rate)}/s",
        "parked": f"{one.parked_documents:,}",
        "state": Text(one.state, style=_colour(one.state)),
    }


def _part(part: PartitionStatus, epoch: int) -> dict[str, RenderableType]:
    state = f"{part.state}: {part.detail}" if part.detail else part.state
    return {
        "projection": "",
        "part": str(part.partition),
        "position": part.position.removeprefix(f"{epoch}:") or "-",
        "applied": _number(part.applied),
        "lag": _number(part.lag_events),
        "late": _late(part.lag_seconds),
        "rate": f"{_number(part.rate)}/s",
        "parked": f"{part.parked_documents:,}",
        "state": Text(" ".join(state.split()), style=_colour(part.state)),
    }


def _colour(state: str) -> str:
    if state in _GOOD:
        return "green"
    return "red" if state in _BAD else "yellow"


def _number(value: float) -> str:
    """Exact while it is short; a table is for the eye, and `--json` for sums."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1000)):
        if value >= 100 * size or (value >= size > 1000):  # noqa: PLR2004 - 100 k and more
            return f"{value / size:.1f} {unit}"
    return f"{value:,.0f}"


def _late(seconds: float | None) -> str:
    if seconds is None:
        return "for ever"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _bytes(value: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"
