"""Checks what observers and writers saw during the run against the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chaos.journal import lines
from chaos.oracle import Oracle
from chaos.verdicts import Verdicts

Window = tuple[float, float]


class States:
    """Which versions a document's fingerprint may stand for."""

    def __init__(self, oracle: Oracle) -> None:
        self._places: dict[str, dict[int | None, list[int]]] = {}
        for name, states in oracle.states.items():
            places: dict[int | None, list[int]] = {}
            for version, state in enumerate(states):
                places.setdefault(state, []).append(version)
            self._places[name] = places

    def versions(self, name: str, state: int | None) -> Sequence[int]:
        """All versions after which the document looks so; a deleted one may be many."""
        return self._places.get(name, {}).get(state, ())


def check_observer(
    path: Path, states: States, windows: Iterable[Window], verdicts: Verdicts
) -> Counter[str]:
    """Every sighting is a state of the history, and none goes back but after a wipe."""
    counts: Counter[str] = Counter()
    at: dict[str, tuple[float, int]] = {}
    wipes = list(windows)
    for moment, what, *rest in lines(path):
        counts[what] += 1
        if what != "saw":
            continue
        name, state, asked = rest
        versions = states.versions(name, state)
        if not versions:
            verdicts.add("order_violations", f"{path.stem} saw {name} in no state of its history")
            continue
        before = at.get(name, (0.0, 0))
        # A reader notes changes only: anything that was wiped since the last one explains this one.
        wiped = any(start <= moment and end >= before[0] for start, end in wipes)
        forward = versions if wiped else [one for one in versions if one >= before[1]]
        if not forward:
            verdicts.add(
                "order_violations",
                f"{path.stem} saw {name} go back from {before[1]} to {versions[-1]} at {moment:.2f}",
            )
        counts["went back after a wipe"] += wiped and versions[-1] < before[1]
        # A store that was wiped between the answer and this note has explained the next one.
        at[name] = (asked, (forward or versions)[0])
    return counts


def check_writer(path: Path, states: States, verdicts: Verdicts) -> Counter[str]:
    """Every read with a token contains the write, or was refused; also where the document is parked."""
    counts: Counter[str] = Counter()
    for moment, what, *rest in lines(path):
        counts[f"refused: {rest[1]}" if what == "refused" else what] += 1
        if what == "read":
            _read(moment, rest, states, verdicts)
    return counts


def _read(
    moment: float,
    rest: list[Any],
    states: States,
    verdicts: Verdicts,
) -> None:
    projection, key, version, state, token = rest
    versions = states.versions(f"{projection}:{key}", state)
    if versions and versions[-1] >= version:
        return
    seen = f"version {versions[-1]}" if versions else "no state of its history"
    verdicts.add(
        "stale_reads",
        f"{projection}:{key} read with {token} at {moment:.2f}: {seen} instead of {version}",
    )
