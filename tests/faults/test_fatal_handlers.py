"""A handler that ends the process, or never ends, is found out and parked; everything else flows."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import readside
from readside.adapters.postgres.session import Session
from readside.operate.dead_letters import DeadLetters

APP = """
import os
import readside

class Done(readside.Event, key="id", type="thing.done"):
    id: str
    how: str

class Thing(readside.View):
    id: str

app = readside.App("{name}")
things = app.projection("{name}-thing", Thing)

@things.on(Done)
def done(event: Done) -> Thing:
    if event.how == "dies":
        os._exit(9)
    while event.how == "hangs":
        pass
    return Thing(event.id)
"""


class Done(readside.Event, key="id", type="thing.done"):
    id: str
    how: str


class Thing(readside.View):
    id: str


@pytest.fixture
async def world(make_app: Any, servers: Any, unique: str, tmp_path: Path) -> Any:
    app = make_app(partitions=2)
    things = app.projection(f"{unique}-thing", Thing)
    await (await app.runtime()).install()
    (tmp_path / "fatal.py").write_text(APP.format(name=unique))
    environment = os.environ | {
        "READSIDE_WRITE_STORE": servers.write_store,
        "READSIDE_BROKER": servers.broker,
        "READSIDE_READ_STORE": servers.read_store,
        "READSIDE_PARTITIONS": "2",
        "READSIDE_LEASE_SECONDS": "1",
        "READSIDE_STALL_SECONDS": "2",
    }
    session = Session(servers.write_store, "test")
    yield app, things, DeadLetters(session, app.name), environment, tmp_path
    await session.close()
    await app.close()


async def supervised(environment: dict[str, str], folder: Path, letters: DeadLetters) -> list[int]:
    """Start it again whenever it ends, as a supervisor does, until something is parked."""
    codes: list[int] = []
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "readside", "run", "fatal:app",
            cwd=folder, env=environment,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done():
                if await letters.find():
                    return codes
                await asyncio.wait({ended}, timeout=0.2)
            codes.append(ended.result())
        finally:
            if not ended.done():
                process.terminate()
                await ended


@pytest.mark.parametrize(("how", "code"), [("dies", 9), ("hangs", 70)])
async def test_what_ends_the_process_again_and_again_is_parked(
    world: Any, run: Any, how: str, code: int
) -> None:
    app, things, letters, environment, folder = world
    async with app.transaction() as tx:
        tx.record(*(Done(str(n), "well") for n in range(20)))
    async with app.transaction() as tx:
        tx.record(Done("fatal", how))
    async with app.transaction() as tx:
        tx.record(*(Done(str(n), "well") for n in range(20, 40)), Done("fatal", "well"))

    codes = await asyncio.wait_for(supervised(environment, folder, letters), 240)

    assert set(codes) == {code}
    (parked,) = await letters.find()
    assert (parked.key, parked.event_type) == ("fatal", "thing.done")
    assert "processes died or hung" in parked.error

    # The handler of this process is mended: everything flows, and the document after a retry.
    @things.on(Done)
    def done(event: Done) -> Thing:
        return Thing(event.id)

    async with run(app):
        everything = readside.Token(tx.token.position, (0, 1))
        found = await things.get_many(range(40), after=everything, timeout=60)
        assert found == [Thing(str(n)) for n in range(40)]
        with pytest.raises(readside.ParkedError):
            await things.get("fatal", after=everything)
        store = await (await app.runtime()).store()
        retried = await letters.retry(parked, things, store)
        assert (retried.error, retried.applied) == ("", 2)
        assert await things.get("fatal", after=everything) == Thing("fatal")
