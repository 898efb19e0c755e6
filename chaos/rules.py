"""What a run must have shown to prove anything, and what is wrong though no document is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chaos.figures import growth

_MB = 1024
#: Kilobytes by which a process may grow once it is warm, and that it may have at all.
_GROWTH = 64 * _MB
_MEMORY = 192 * _MB
#: Connections beyond those of the beginning, when not everybody had all of his yet.
_CONNECTIONS = 12
#: Bytes of WAL that the slot may keep when all is applied and settled.
_WAL = 128 * 1024**2


class Bounds(NamedTuple):
    """What the tables of a run may hold, and what of its figures is kept on purpose."""

    #: Units: a row each in leases, progress and rewinds.
    units: int
    #: Lives of readside's processes: a row each in workers, which stays for an hour.
    lives: int
    #: Whether a slot may come or go, as the capture is changed.
    capture_changes: bool
    #: Whether PostgreSQL keeps WAL of what was applied long ago.
    keeps_wal: bool


def unproven(
    seen: Mapping[str, int], committed: Mapping[str, int], exits: Mapping[str, Sequence[int]]
) -> list[str]:
    """Why nothing can be concluded from what writers and observers saw.

    Args:
        seen: what they noted, counted.
        committed: transactions by writer.
        exits: how processes ended by themselves.
    """
    reasons = [f"{name} committed nothing" for name, count in committed.items() if not count]
    if not seen.get("saw"):
        reasons.append("no observer saw anything")
    if not seen.get("read"):
        reasons.append("no read with a token was answered")
    ended = [name for name in exits if name.startswith(("writer", "observer"))]
    return reasons + [f"{name} ended by itself" for name in ended]


def troubles(effects: Mapping[str, int], tracebacks: Sequence[str]) -> list[str]:
    """What no fault may ever lead to."""
    found = [f"traceback of {words}" for words in tracebacks]
    if effects["lanes_died"]:
        found.append(f"{effects['lanes_died']} lanes died")
    return found


def grown(
    before: Mapping[str, Any], warm: Mapping[str, Any], after: Mapping[str, Any], bounds: Bounds
) -> list[str]:
    """What has grown in a long run that should not have; each with figure and bound."""
    if "rows" not in before or "rows" not in after:
        return ["PostgreSQL told no figures of its own"]
    found = [
        f"{after[name]} {words} remain, not 0"
        for name, words in (
            ("temporary_files", "temporary files"),
            ("postgres_temp_files", "temporary files of PostgreSQL"),
        )
        if after[name]
    ]
    slots = after["slots"]
    if slots > 1 if bounds.capture_changes else slots != before["slots"]:
        found.append(f"{slots} replication slots, not {before['slots']}")
    tables = dict.fromkeys(("leases", "progress", "rewinds"), bounds.units)
    figures = [
        ("connections", after["connections"], before["connections"] + _CONNECTIONS),
        *((f"rows of {name}", after["rows"][name], most) for name, most in tables.items()),
        ("rows of workers", after["rows"]["workers"], bounds.lives),
    ]
    if not bounds.keeps_wal:
        figures.append(("bytes of WAL kept by the slot", after["wal_kept_bytes"], _WAL))
    for name, more in growth(dict(warm), dict(after)).items():
        figures.append((f"kB of {name}", after["processes"][name]["rss_kb"], _MEMORY))
        figures.append((f"kB that {name} grew by once it was warm", more["rss_kb"], _GROWTH))
    return found + [
        f"{has} {what}, not {most} at most" for what, has, most in figures if has > most
    ]
