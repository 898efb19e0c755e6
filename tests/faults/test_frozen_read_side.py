"""A read side that stands still: commands commit as if it ran, and it gets everything later."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import readside

APP = """
import readside

class Noted(readside.Event, key="id", type="thing.noted"):
    id: str
    text: str

class Thing(readside.View):
    size: int

app = readside.App("{name}")
things = app.projection("{name}-thing", Thing)

@things.on(Noted)
def noted(event: Noted) -> Thing:
    return Thing(len(event.text))
"""


class Noted(readside.Event, key="id", type="thing.noted"):
    id: str
    text: str


class Thing(readside.View):
    size: int


async def test_writing_goes_on(
    make_app: Any, servers: Any, broker_url: str, unique: str, tmp_path: Path
) -> None:
    app = make_app(broker_url, partitions=2)
    things = app.projection(f"{unique}-thing", Thing)
    await (await app.runtime()).install()
    (tmp_path / "frozen.py").write_text(APP.format(name=unique))
    settings = {
        "READSIDE_WRITE_STORE": servers.write_store,
        "READSIDE_BROKER": broker_url,
        "READSIDE_READ_STORE": servers.read_store,
        "READSIDE_PARTITIONS": "2",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "readside", "run", "frozen:app", cwd=tmp_path,
        env=os.environ | settings, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await things.get("first", after=await _write(app, "first", 1), timeout=60)
        process.send_signal(signal.SIGSTOP)
        longest = 0.0
        # More than the sockets and pipes in between can hold.
        for number in range(400):
            began = time.monotonic()
            token = await _write(app, str(number), 100_000)
            longest = max(longest, time.monotonic() - began)
        assert longest < 15  # the disk of a busy machine, and nobody's patience
        assert await things.get("399") is None
        process.send_signal(signal.SIGCONT)
        everything = readside.Token(token.position, (0, 1))
        keys = [str(number) for number in range(400)]
        found = await things.get_many(keys, after=everything, timeout=120)
        assert found == [Thing(100_000)] * 400
    finally:
        process.kill()
        await process.wait()


async def _write(app: readside.App, key: str, size: int) -> readside.Token:
    async with app.transaction() as tx:
        tx.record(Noted(key, "x" * size))
    return tx.token
