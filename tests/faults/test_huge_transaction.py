"""One transaction of very many events: every document is right, and no service grows with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
_EVENTS = 50_000
#: So that a service which kept the transaction in memory would go past its bound: 100 MB of payload.
_BALLAST = 2000


@pytest.mark.parametrize("broker", ["nats", "direct"])
def test_a_huge_transaction_is_shipped_in_bounded_memory(broker: str) -> None:
    command = [sys.executable, "-m", "chaos", "--huge", str(_EVENTS), "--ballast", str(_BALLAST)]
    ended = subprocess.run(
        [*command, "--broker", broker, "--json"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout, ended.stderr[-4000:]
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["events"] == _EVENTS
    assert not report["wrong"], report
    assert ended.returncode == 0, ended.stderr[-4000:]
