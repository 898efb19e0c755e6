"""``python -m chaos.scenarios.big_writer EVENTS ACCOUNTS BYTES``: one transaction, recorded in chunks.

Prints one line of JSON: seconds until the commit was answered, and the peak of its memory.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from chaos.scenarios.accounts import Paid, app

_CHUNK = 5000


def events(count: int, accounts: int, size: int) -> Iterator[Paid]:
    """The events of the transaction in their order."""
    note = "n" * size
    for number in range(count):
        yield Paid(f"a-{number % accounts}", number // accounts + 1, number % 997, note)


def peak_kb(pid: int | str) -> int:
    """The largest resident memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise ValueError(pid)


async def write(count: int, accounts: int, size: int) -> None:
    """Record everything in one transaction."""
    before = peak_kb("self")
    began = time.monotonic()
    async with app.transaction() as tx:
        everything = events(count, accounts, size)
        while chunk := list(islice(everything, _CHUNK)):
            tx.record(*chunk)
            await tx.flush()
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"seconds": seconds, "idle_kb": before, "peak_kb": peak_kb("self")}))
    await app.close()


if __name__ == "__main__":
    asyncio.run(write(*map(int, sys.argv[1:])))
