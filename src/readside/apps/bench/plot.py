"""The picture: throughput as bars, latency as percentiles; SVG, which every browser shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from readside.apps.bench.plan import PATHS

_WIDTH, _HEIGHT = 960, 430
_TOP, _BOTTOM = 90, 360
_COLOURS = {"limit": "#8a8f98", "direct": "#2563a8", "nats": "#d9822b", "frames": "#b5442e"}
_NAMES = {
    "limit": "pg_recvlogical",
    "direct": "direct",
    "nats": "through NATS",
    "frames": "in frames",
}
#: From here on, milliseconds are shown without a fraction.
_WHOLE = 100
_PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p99_9": "p99.9"}


def picture(found: dict[str, Any]) -> str:
    """Draw what the JSON document says."""
    machine = found["machine"]
    title = f"readside {machine['readside']}: {found['events']:,} events of {found['payload_bytes']} bytes"
    below = (
        f"{machine['cores']} cores, {machine['cpu']}; PostgreSQL {machine['postgresql']},"
        f" {machine['read_store']}, Python {machine['python']}, {machine['event_loop']}"
    )
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _text(30, 32, title, size=18),
        *_throughput(found),
        *_latency(found.get("latency_ms", {})),
        _text(30, _HEIGHT - 14, below, size=11, colour="#666"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _throughput(found: dict[str, Any]) -> Iterator[str]:
    yield _text(30, 64, "Events a second, and the share of what PostgreSQL can send")
    bars = {"limit": found.get("limit_eps", 0)}
    bars |= {path: found[path]["eps"] for path in PATHS if path in found}
    most = max(bars.values()) or 1
    for number, (name, speed) in enumerate(bars.items()):
        left, height = 34 + 98 * number, (_BOTTOM - _TOP - 25) * speed / most
        top = _BOTTOM - height
        yield (
            f'<rect x="{left}" y="{top:.1f}" width="74" height="{height:.1f}"'
            f' fill="{_COLOURS[name]}"/>'
        )
        share = f" ({found[name]['ratio']:.2f})" if name != "limit" else ""
        yield _text(left + 37, top - 6, f"{speed:,}{share}", anchor="middle", size=12)
        yield _text(left + 37, _BOTTOM + 18, _NAMES[name], anchor="middle", size=12)
    yield _line(30, _BOTTOM, 420, _BOTTOM, "#222")


def _latency(paths: dict[str, Any]) -> Iterator[str]:
    """For each path and rate a stick from p50 to p99.9, on a logarithmic scale."""
    sticks = [(path, one) for path, found in paths.items() for one in found["rates"]]
    if not sticks:
        return
    yield _text(480, 64, "Milliseconds from commit to readable: p50, p90, p99, p99.9")
    lowest = math.floor(math.log10(max(0.1, min(one["p50"] for _, one in sticks))))
    highest = math.ceil(math.log10(max(one["p99_9"] for _, one in sticks)))
    highest = max(highest, lowest + 1)

    def height(value: float) -> float:
        share = (math.log10(max(value, 0.1)) - lowest) / (highest - lowest)
        return _BOTTOM - max(0.0, share) * (_BOTTOM - _TOP)

    for power in range(lowest, highest + 1):
        yield _line(510, height(10.0**power), 930, height(10.0**power), "#ddd")
        yield _text(502, height(10.0**power) + 4, f"{10.0**power:g}", anchor="end")
    rates = sorted({one["rate"] for _, one in sticks})
    step = 420 / len(rates)
    for path, one in sticks:
        middle = 510 + step * (rates.index(one["rate"]) + 0.5)
        left = middle + (-20 if path == next(iter(paths)) else 20)
        yield from _stick(left, path, one, height)
    for number, rate in enumerate(rates):
        label = f"{rate:,}/s"
        yield _text(510 + step * (number + 0.5), _BOTTOM + 18, label, anchor="middle")
    for number, path in enumerate(paths):
        yield f'<rect x="{510 + 130 * number}" y="{_BOTTOM + 28}" width="10" height="10" fill="{_COLOURS[path]}"/>'
        yield _text(526 + 130 * number, _BOTTOM + 37, _NAMES[path], size=12)


def _stick(left: float, path: str, one: dict[str, Any], height: Any) -> Iterator[str]:
    colour = _COLOURS[path]
    yield _line(left, height(one["p50"]), left, height(one["p99_9"]), colour, 2)
    for name, shown in _PERCENTILES.items():
        size = 6 if name == "p50" else 3.5
        value = f"{_NAMES[path]}, {one['rate']:,}/s, {shown}: {one[name]} ms"
        yield (
            f'<circle cx="{left:.1f}" cy="{height(one[name]):.1f}" r="{size}" fill="{colour}">'
            f"<title>{escape(value)}</title></circle>"
        )
    label = f"{one['p50']:.1f}" if one["p50"] < _WHOLE else f"{one['p50']:.0f}"
    yield _text(left, height(one["p50"]) + 19, label, anchor="middle", size=11)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{colour}" stroke-width="{width}"/>'
    )
