"""A short run of chaos on each broker: whatever fails, nothing is wrong in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
_WRONGS = ("lost", "phantom", "double_applied", "order_violations", "stale_reads")


@pytest.mark.parametrize(("broker", "seed"), [("nats", 8), ("direct", 8)])
def test_nothing_is_wrong_after_a_short_run(broker: str, seed: int) -> None:
    command = [sys.executable, "-m", "chaos", "--broker", broker, "--seed", str(seed)]
    ended = subprocess.run(
        [*command, "--seconds", "15", "--patience", "600", "--json"],
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
