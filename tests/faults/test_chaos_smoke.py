"""A short run of chaos of each kind: whatever fails, nothing is wrong in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
_WRONGS = ("lost", "phantom", "double_applied", "order_violations", "stale_reads")


#: Every source, broker, store and mode is there, and all pairs of the first three.
@pytest.mark.parametrize(
    ("setup", "seconds"),
    [
        ("--broker nats", 15),
        ("--broker nats --frames", 15),
        ("--broker direct", 15),
        ("--source polling", 10),
        ("--source polling --broker direct --store postgres", 10),
        ("--store postgres", 10),
        ("--mode inline", 10),
    ],
)
def test_nothing_is_wrong_after_a_short_run(setup: str, seconds: int) -> None:
    command = [sys.executable, "-m", "chaos", *setup.split(), "--seed", "8"]
    ended = subprocess.run(
        [*command, "--seconds", str(seconds), "--patience", "600", "--json"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout, ended.stderr[-4000:]
    report = json.loads(ended.stdout.splitlines()[-1])
    wrongs = {name: report[name] for name in _WRONGS}
    assert wrongs == dict.fromkeys(_WRONGS, 0), "\n".join(report["examples"])
    assert report["committed"] > 0
    assert report["faults"]
    assert report["caught_up_after"] is not None
    assert not report["unexpected_exits"]
