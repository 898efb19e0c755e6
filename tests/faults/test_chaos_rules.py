"""What makes a chaos run invalid or wrong though every document is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chaos.effects import commits, said, tracebacks
from chaos.rules import Bounds, grown, troubles, unproven

_SEEN = {"saw": 9000, "read": 200}
_COMMITTED = {"writer-0": 700, "writer-1": 650}
_BOUNDS = Bounds(units=20, lives=9, capture_changes=False, keeps_wal=False)
_WARM: dict[str, Any] = {
    "processes": {
        "one": {"pid": 7, "age": 60, "rss_kb": 66000, "files": 19},
        "two": {"pid": 8, "age": 20, "rss_kb": 56000, "files": 19},
    }
}


def _figures(**others: Any) -> dict[str, Any]:
    """Those of an honest run's end."""
    return {
        "processes": {
            "one": {"pid": 7, "age": 660, "rss_kb": 94000, "files": 39},
            "two": {"pid": 8, "age": 620, "rss_kb": 89000, "files": 35},
        },
        "temporary_files": 0,
        "postgres_temp_files": 0,
        "connections": 13,
        "slots": 1,
        "wal_kept_bytes": 9 * 1024**2,
        "rows": {"leases": 20, "progress": 20, "rewinds": 20, "workers": 9},
    } | others


def _rows(**others: int) -> dict[str, int]:
    return _figures()["rows"] | others


def _process(pid: int, rss_kb: int) -> dict[str, Any]:
    return {"one": {"pid": pid, "age": 660, "rss_kb": rss_kb, "files": 39}}


def test_an_honest_run_proves_something() -> None:
    assert unproven(_SEEN, _COMMITTED, {"one": [70]}) == []
    assert troubles({"tracebacks": 0, "lanes_died": 0}, []) == []
    assert grown(_figures(connections=10), _WARM, _figures(), _BOUNDS) == []


@pytest.mark.parametrize(
    ("seen", "committed", "exits", "why"),
    [
        ({"read": 200}, _COMMITTED, {}, "no observer saw anything"),
        ({"saw": 9000}, _COMMITTED, {}, "no read with a token was answered"),
        (_SEEN, {"writer-0": 700, "writer-1": 0}, {}, "writer-1 committed nothing"),
        (_SEEN, _COMMITTED, {"writer-1": [1]}, "writer-1 ended by itself"),
        (_SEEN, _COMMITTED, {"observer-0": [1, 1]}, "observer-0 ended by itself"),
    ],
)
def test_what_nobody_looked_at_is_not_proven(
    seen: dict[str, int], committed: dict[str, int], exits: dict[str, list[int]], why: str
) -> None:
    assert unproven(seen, committed, exits) == [why]


@pytest.mark.parametrize(
    ("after", "what"),
    [
        ({"temporary_files": 3}, "3 temporary files remain, not 0"),
        ({"postgres_temp_files": 1}, "1 temporary files of PostgreSQL remain, not 0"),
        ({"slots": 2}, "2 replication slots, not 1"),
        ({"slots": 0}, "0 replication slots, not 1"),
        ({"connections": 26}, "26 connections, not 25 at most"),
        ({"rows": _rows(workers=10)}, "10 rows of workers, not 9 at most"),
        ({"rows": _rows(leases=21)}, "21 rows of leases, not 20 at most"),
        ({"rows": _rows(progress=40)}, "40 rows of progress, not 20 at most"),
        ({"rows": _rows(rewinds=21)}, "21 rows of rewinds, not 20 at most"),
        (
            {"wal_kept_bytes": 200 * 1024**2},
            "209715200 bytes of WAL kept by the slot, not 134217728 at most",
        ),
        (
            {"processes": _process(7, 66000 + 65537)},
            "65537 kB that one grew by once it was warm, not 65536 at most",
        ),
    ],
)
def test_growth_is_wrong(after: dict[str, Any], what: str) -> None:
    assert grown(_figures(), _WARM, _figures(**after), _BOUNDS) == [what]


def test_a_process_is_not_large_either() -> None:
    warm = {"processes": _process(7, 190000)}
    (what,) = grown(_figures(), warm, _figures(processes=_process(7, 197000)), _BOUNDS)
    assert what == "197000 kB of one, not 196608 at most"


def test_a_process_that_was_started_again_has_not_grown() -> None:
    assert grown(_figures(), _WARM, _figures(processes=_process(9, 300000)), _BOUNDS) == []


def test_what_is_kept_on_purpose_is_no_growth() -> None:
    lots = _figures(wal_kept_bytes=1024**3)
    assert grown(_figures(), _WARM, lots, _BOUNDS._replace(keeps_wal=True)) == []
    changing = _BOUNDS._replace(capture_changes=True)
    assert grown(_figures(slots=0), _WARM, _figures(), changing) == []
    assert grown(_figures(slots=0), _WARM, _figures(slots=2), changing)


def test_figures_that_are_not_to_be_had_are_not_taken_for_good() -> None:
    assert grown(_figures(), _WARM, {"processes": {}, "temporary_files": 0}, _BOUNDS)


def test_tracebacks_and_dead_lanes_are_wrong(tmp_path: Path) -> None:
    log = tmp_path / "node-one.log"
    log.write_text(
        "--- start 1 at 1.0\n"
        "2026-11-30 21:00:00 ERROR   lane Unit('lists', 1) died: KeyError('a')\n"
        "Traceback (most recent call last):\n"
        '  File "/work/src/readside/projector/lane.py", line 1, in run\n'
        "    await self._session()\n"
        "KeyError: 'a'\n"
        "2026-11-30 21:00:01 DEBUG   lists partition 1: 3 records came again, and were passed over\n"
    )
    effects = said([log])
    assert effects["duplicates_skipped"] == 1
    assert troubles(effects, tracebacks([log])) == [
        "traceback of node-one: KeyError: 'a'",
        "1 lanes died",
    ]


def test_a_traceback_of_a_library_alone_is_not_ours(tmp_path: Path) -> None:
    log = tmp_path / "node-two.log"
    log.write_text(
        "Traceback (most recent call last):\n"
        '  File "/home/readside/lib/site-packages/nats/aio/client.py", line 2410, in _read_loop\n'
        "    await self._process_op_err(err)\n"
        "RuntimeError: the handler is closed\n"
    )
    assert said([log])["tracebacks"] == 1
    assert tracebacks([log]) == []


def test_commits_are_counted_for_each_writer(tmp_path: Path) -> None:
    notes = [[1.0, "committed", 3], [1.5, "error", "OSError", "x"], [2.0, "committed", 1]]
    path = tmp_path / "writer-0.journal"
    path.write_text("".join(json.dumps(note) + "\n" for note in notes))
    away = tmp_path / "writer-1.journal"
    assert commits({"writer-0": path, "writer-1": away}) == {"writer-0": 2, "writer-1": 0}
