"""Figures of a proof: percentiles, and a table of what each way gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from readside.apps.bench.figures import percentile

Row = Mapping[str, object]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    ordered = sorted(seconds)
    return {
        name: round(percentile(ordered, share) * 1000, 2)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def table(rows: Sequence[Row]) -> str:
    """A table for people, with a column for each name in the first row; inner ones as name.inner."""
    flat = [_flat(row) for row in rows]
    lines = [list(flat[0]), *([str(row.get(name, "")) for name in flat[0]] for row in flat)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _flat(row: Row) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": it for inner, it in value.items()}
        elif not isinstance(value, list):
            found[name] = value
    return found
