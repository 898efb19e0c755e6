"""What the faults did to readside, from its logs and from the servers: a run without effects proves nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from chaos.journal import lines

#: Effect -> what readside's processes log when it happens.
_SAID = {
    "relay_sessions": re.compile(r"streams from"),
    "relay_standbys": re.compile(r"standby:"),
    "retries": re.compile(r"tries again and again"),
    "holes_asked_for": re.compile(r"a hole, "),
    "resends": re.compile(r"sending again from after"),
    "duplicates_skipped": re.compile(r"came again, and were passed over"),
    "resends_impossible": re.compile(r"sending again .* is not possible"),
    "fences_noticed": re.compile(r"Somebody else works|the checkpoint .*not as it was left|changed while it was claimed"),
    "store_went_back": re.compile(r"checkpoint in the store is not as it was left"),
    "leases_lost": re.compile(r"a worker with token"),
    "log_rescans": re.compile(r"reading the broker's log from its beginning"),
    "histories_lost": re.compile(r"which this projection never applied are gone|halted"),
    "epochs_begun": re.compile(r"history of app .* restarted"),
    "documents_parked": re.compile(r" is parked at "),
    "lanes_died": re.compile(r"lane .* died"),
    "publications_uncertain": re.compile(r"did not prove that it stored"),
    "tracebacks": re.compile(r"Traceback \(most recent call last\)"),
}  # fmt: skip

_OURS = re.compile(r'File ".*/(src|site-packages)/readside/')


def said(logs: list[Path]) -> Counter[str]:
    """Count what the processes said."""
    found: Counter[str] = Counter(dict.fromkeys(_SAID, 0))
    for log in logs:
        if not log.exists():
            continue
        for line in log.read_text(errors="replace").splitlines():
            for name, pattern in _SAID.items():
                if pattern.search(line):
                    found[name] += 1
    return found


def tracebacks(logs: Iterable[Path]) -> list[str]:
    """The exception of each traceback that goes through readside's code; others are a library's own."""
    found = []
    for log in logs:
        inside = ours = False
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            if _SAID["tracebacks"].search(line):
                inside, ours = True, False
            elif inside and line.startswith((" ", "\t")):
                ours = ours or _OURS.search(line) is not None
            elif inside and line:
                if ours:
                    found.append(f"{log.stem}: {line}")
                inside = False
    return found


def commits(journals: Mapping[str, Path]) -> dict[str, int]:
    """How many transactions each writer knows to be committed."""
    return {name: _count(path, "committed") for name, path in journals.items()}


def failed(journals: Iterable[Path]) -> int:
    """Count the commands which ended with an error of the server's or the network's."""
    return sum(_count(path, "error") for path in journals)


def _count(journal: Path, what: str) -> int:
    return sum(1 for _, noted, *_ in lines(journal) if noted == what)


def noted(dsn: str) -> dict[str, Any]:
    """What readside's notes in PostgreSQL tell."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        moves = connection.execute(
            "SELECT coalesce(sum(token), 0) - count(*) FROM readside.leases"
        ).fetchone()
        pollers = connection.execute("SELECT coalesce(max(token), 1) - 1 FROM readside.pollers")
        changed = pollers.fetchone()
        epoch = connection.execute("SELECT epoch, complete FROM readside.capture").fetchone()
    return {
        "leases_moved": int(moves[0]) if moves else 0,
        "pollers_changed": int(changed[0]) if changed else 0,
        "epoch_complete": bool(epoch and epoch[1]),
    }
