"""The servers of a run, on fixed ports and directories, with a read store that can go back in time."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from chaos import tables
from chaos.reaper import state_of
from chaos.setup import Setup
from readside.adapters.embedded.log import Log
from readside.adapters.embedded.nats import Nats
from readside.adapters.embedded.ports import free_port
from readside.adapters.embedded.postgres import Postgres
from readside.adapters.embedded.process import Recipe, Server
from readside.adapters.embedded.spawn import Command
from readside.adapters.embedded.valkey import Valkey
from readside.core.errors import UnavailableError


class StrictValkey(Valkey):
    """Every answered write is in the file before the answer: a kill takes nothing back.

    With ``everysec`` the server may put a write off while a sync is under way, and an observer
    could not tell that from a fault of readside's.
    """

    async def prepare(self, log: Log) -> Command:
        """As the embedded one, with another policy of syncing."""
        command = await super().prepare(log)
        words = ["no" if word == "everysec" else word for word in command.arguments]
        return Command([*words, "--auto-aof-rewrite-percentage", "0"], command.home)


def _tables(directory: Path) -> Recipe:
    own = directory / "tables"
    own.mkdir()
    return Postgres(own, free_port(), durable=False)


#: In the order in which they are started.
_RECIPES: dict[str, Callable[[Path], Recipe]] = {
    "postgres": lambda directory: Postgres(directory, free_port(), durable=False),
    "valkey": lambda directory: StrictValkey(directory, free_port()),
    "tables": _tables,
    "nats": lambda directory: Nats(directory, free_port()),
}


class Servers:
    """PostgreSQL, and what a setup has besides: Valkey or another PostgreSQL, NATS."""

    def __init__(self, directory: Path, setup: Setup) -> None:
        self.directory = directory
        self._recipes = {
            name: make(directory) for name, make in _RECIPES.items() if name in setup.servers
        }
        self.servers = {
            name: Server(recipe, directory / f"{name}.log")
            for name, recipe in self._recipes.items()
        }
        #: Two faults may want to start a server at once, and the second would end what the first one started.
        self.starting = {name: asyncio.Lock() for name in self.servers}
        #: Snapshots of the read store: when, and the file.
        self.snapshots: list[tuple[float, Path]] = []
        self._copies = 0
        #: Copies of the broker's files: when, and the folder.
        self.copies: list[tuple[float, Path]] = []

    def __getitem__(self, name: str) -> Server:
        return self.servers[name]

    def address(self, name: str) -> str:
        """The URL of a server."""
        return self._recipes[name].address

    def pids(self) -> set[int]:
        """The process ids that are waited for elsewhere."""
        found = set()
        for server in self.servers.values():
            with suppress(UnavailableError):  # a fault may kill it at any moment
                found.add(server.pid)
        return found

    def frozen(self, name: str) -> bool:
        """Whether a fault has frozen a server."""
        with suppress(UnavailableError):
            return state_of(self.servers[name].pid) == "T"
        return False

    def resume(self, name: str) -> None:
        """Let a server go on, if it was not killed meanwhile."""
        with suppress(UnavailableError):
            self.servers[name].resume()

    async def start(self) -> None:
        """Start all of them, one after the other."""
        for server in self.servers.values():
            await server.start()

    def snapshot(self) -> None:
        """Keep the read store's present state; an unreachable one is left alone."""
        if "tables" in self.servers:
            self._copy_tables()
        elif "valkey" in self.servers:
            self._save_valkey()

    def _copy_tables(self) -> None:
        if not self["tables"].running or self.frozen("tables"):
            return
        self._copies += 1
        place = self.directory / f"tables-copy-{self._copies}"
        whole = False
        try:
            self["tables"].pause()
            whole = tables.copy(self._recipes["tables"].home, place) and self.frozen("tables")
        except UnavailableError:
            pass
        finally:
            self.resume("tables")
        if whole:
            self.snapshots.append((time.time(), place))
            tables.thin(self.snapshots)
        else:
            shutil.rmtree(place, ignore_errors=True)

    def _save_valkey(self) -> None:
        home = self._recipes["valkey"].home
        try:
            with redis.Redis.from_url(
                self.address("valkey"), socket_timeout=3, socket_connect_timeout=1, retry=None
            ) as client:
                client.save()
        except redis.RedisError:
            return
        place = self.directory / f"snapshot-{len(self.snapshots)}.rdb"
        shutil.copy(home / "dump.rdb", place)
        self.snapshots.append((time.time(), place))

    async def roll_back(self, snapshot: Path) -> None:
        """Kill the read store, and start it from an older state."""
        if "tables" in self.servers:
            async with self.starting["tables"]:
                self["tables"].kill()
                await asyncio.to_thread(tables.put_back, self._recipes["tables"].home, snapshot)
                await self["tables"].start()
            return
        server = self["valkey"]
        async with self.starting["valkey"]:
            server.kill()
            log = self._recipes["valkey"].home / "appendonlydir"
            shutil.rmtree(log, ignore_errors=True)
            log.mkdir()
            shutil.copy(snapshot, log / "appendonly.aof.1.base.rdb")
            (log / "appendonly.aof.manifest").write_text(
                "file appendonly.aof.1.base.rdb seq 1 type b\n"
            )
            await server.start()

    def copy_log(self) -> None:
        """Keep the broker's files as they are, as a copy of its disk would; only while it runs."""
        server = self.servers.get("nats")
        if server is None or not server.running or self.frozen("nats"):
            return
        place = self.directory / f"nats-copy-{len(self.copies)}"
        try:
            server.pause()
            shutil.copytree(self._recipes["nats"].home, place)
        except (OSError, shutil.Error, UnavailableError):
            shutil.rmtree(place, ignore_errors=True)
            return
        finally:
            self.resume("nats")
        self.copies.append((time.time(), place))

    async def put_back_log(self, copy: Path) -> None:
        """Kill the broker, and start it from older files."""
        server = self["nats"]
        async with self.starting["nats"]:
            server.kill()
            home = self._recipes["nats"].home
            shutil.rmtree(home)
            shutil.copytree(copy, home)
            await server.start()

    def stop(self) -> None:
        """End all of them."""
        for server in self.servers.values():
            if server.running:
                server.resume()
                server.ask_to_stop()
        for server in self.servers.values():
            server.finish_stopping()
