"""PostgreSQL goes back to a copy of its files, with its slot and readside's notes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

import readside
from readside.adapters.embedded import EmbeddedServers
from readside.adapters.postgres.session import Session
from readside.operate.reset import reset

ALL = tuple(range(8))
#: More than readside itself writes before it looks: the first change of a page is a whole page in the log.
LARGE = token_hex(10_000)  # not to be compressed


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int
    note: str = ""


class History(readside.View):
    numbers: list[int]


class Machine:
    """The files of PostgreSQL, while it does not run."""

    def __init__(self, servers: EmbeddedServers, directory: Path) -> None:
        self._server = servers["postgres"]
        self._data, self._copy = directory / "postgres", directory / "copy"

    async def copied(self) -> None:
        self._server.kill()
        # Its owner stays: the server may run as another user.
        subprocess.run(["cp", "-a", self._data, self._copy], check=True)  # noqa: ASYNC221
        await self._server.start()

    async def restored(self) -> None:
        self._server.kill()
        shutil.rmtree(self._data)
        self._copy.rename(self._data)
        await self._server.start()


class World:
    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.histories = app.projection("history", History)
        self.session = Session(app.settings.write_store, "test")

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, *numbers: int, note: str = "") -> readside.Token:
        """Record them in one transaction; the connections may be those of before a crash."""
        while True:
            try:
                async with self.app.transaction() as tx:
                    tx.record(*(Counted("a", number, note) for number in numbers))
            except readside.UnavailableError:
                await asyncio.sleep(0.05)
            else:
                return readside.Token(tx.token.position, ALL)

    async def read(self, token: readside.Token) -> list[int]:
        history = await self.histories.get("a", after=token, timeout=60)
        return history.numbers if history else []

    async def lost(self) -> str:
        """Wait until readers are told; return what they are told."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.histories.get("a")
                except readside.HistoryLostError as error:
                    return str(error)
                await asyncio.sleep(0.05)

    async def epoch(self) -> int:
        """The epoch as it is noted, when PostgreSQL is there."""
        while True:
            try:
                ((epoch,),) = await self.session.query("SELECT epoch FROM readside.capture")
            except readside.UnavailableError:
                await asyncio.sleep(0.05)
            else:
                return int(epoch)

    async def give_up(self) -> None:
        store = await (await self.app.runtime()).store()
        await reset(self.session, self.app.name, "history", store, give_up=True)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[EmbeddedServers]:
    servers = EmbeddedServers(tmp_path / "servers", durable=False)
    await servers.start()
    yield servers
    await servers.stop()


@pytest.mark.parametrize(
    ("capture", "broker"),
    [("replication", "direct"), ("polling", "direct"), ("replication", "nats")],
)
async def test_what_was_shipped_and_is_lost_begins_a_new_epoch(
    servers: EmbeddedServers, tmp_path: Path, run: Any, capture: str, broker: str
) -> None:
    addresses = await servers.start()
    app = readside.App(
        "restored",
        write_store=addresses.write_store,
        broker="direct:" if broker == "direct" else addresses.broker,
        read_store=addresses.read_store,
        capture=capture,
        settle_delay=0.1,
    )
    world, machine = World(app), Machine(servers, tmp_path / "servers")
    async with run(app):
        assert await world.read(await world.write(1)) == [1]
        epoch = await world.epoch()
        await machine.copied()
        assert await world.epoch() == epoch
        assert await world.read(await world.write(*range(2, 50), note=LARGE)) == [*range(1, 50)]
        await machine.restored()
        await world.lost()
        async with asyncio.timeout(60):
            while await world.epoch() == epoch:
                await asyncio.sleep(0.05)
        # As many as are gone, and one more beyond the old log's end: nobody takes them for those.
        await world.write(*range(102, 150), note=LARGE)
        await world.write(150, note=LARGE)
    async with run(app):
        for _ in range(30):
            with pytest.raises(readside.HistoryLostError):
                await world.histories.get("a")
            await asyncio.sleep(0.1)
        await world.give_up()
        numbers = await world.read(await world.write(200))
        assert numbers == [*range(102, 151), 200][-len(numbers) :]
    await world.session.close()
    await app.close()
