"""Everything that runs in one chaos run: servers, proxies, readside processes, writers, observers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from chaos.options import Options
from chaos.plan import Regime, regime
from chaos.process import Child
from chaos.proxy import Proxy
from chaos.reaper import awaited, bury
from chaos.servers import Servers
from chaos.workload import KEYS, RARE, SCHEMA

PARTITIONS = 4
_ROOT = Path(__file__).parent.parent
_URLS = {
    "postgres": "WRITE_STORE",
    "nats": "BROKER",
    "valkey": "READ_STORE",
    "tables": "READ_STORE",
}


#: What a process says that was told of another capture than the app is installed for meanwhile.
_OTHER_CAPTURE = "is installed for capture by"
_WALSENDER = (
    "SELECT a.client_port FROM pg_replication_slots s"
    " JOIN pg_stat_activity a ON a.pid = s.active_pid"
)
#: One that is frozen may still be connected; the newest is the one at work.
_POLLER = (
    "SELECT client_port FROM pg_stat_activity WHERE application_name = 'readside poller'"
    " ORDER BY backend_start DESC LIMIT 1"
)


class Node:
    """A `readside run` process with proxies of its own to every server."""

    def __init__(self, name: str, role: str, proxies: dict[str, Proxy]) -> None:
        self.name = name
        self.role = role
        self.proxies = proxies
        self.child: Child = None  # type: ignore[assignment]  # made when the ports are known


class Cast(NamedTuple):
    """Who is on the stage."""

    #: Names and roles of readside's processes; those of a general run if empty.
    nodes: tuple[tuple[str, str], ...] = ()
    writers: int = 3
    observers: int = 2
    #: More environment for all of them.
    environment: Mapping[str, str] = {}
    app: str = "chaos.app:app"


class World:
    """Starts everything, hands it out, and ends it."""

    def __init__(self, options: Options, directory: Path, cast: Cast | None = None) -> None:
        self.cast = cast or Cast()
        self.options = options
        self.setup = options.setup
        self.directory = directory
        self.regime: Regime = regime(options.seed, self.setup)
        self.servers = Servers(directory, self.setup)
        self.mended = directory / "mended"
        self.temporary = directory / "tmp"
        self.nodes: list[Node] = []
        self.writers: list[Child] = []
        self.observers: list[Child] = []
        #: Where the writers' network can fail, too: nobody else needs it.
        self._writers_proxies: list[Proxy] = []
        #: The capture that the app is installed for, as its processes are told.
        self.capture = self.regime.begins if self.setup.capture == "polling" else "replication"
        #: How often somebody has tried to change it; then a process may refuse, as it should.
        self.changes = 0

    def children(self) -> Iterator[Child]:
        """All child processes but the servers."""
        yield from (node.child for node in self.nodes)
        yield from self.writers
        yield from self.observers

    def proxies(self, server: str) -> list[Proxy]:
        """The proxies in front of a server, one a node, or one a writer where there are no nodes."""
        return [node.proxies[server] for node in self.nodes] or self._writers_proxies

    @property
    def cuts(self) -> int:
        """Connections that were cut by the proxies."""
        everywhere = [proxy for server in self.servers.servers for proxy in self.proxies(server)]
        return sum(proxy.cuts for proxy in everywhere)

    @property
    def fenced(self) -> int:
        """Writes which the read store has refused, by its own word."""
        return sum(node.proxies[self.setup.read_store].fenced for node in self.nodes)

    @property
    def polls_refused(self) -> int:
        """Ticks which PostgreSQL has refused, as another poller had taken over."""
        return sum(node.proxies["postgres"].fenced for node in self.nodes)

    @property
    def documents(self) -> str:
        """The URL of what holds the documents, not through a proxy."""
        return self.servers.address(self.setup.read_store)

    async def start(self) -> None:
        """Start servers, install, start readside and its users."""
        self.mended.mkdir()
        self.temporary.mkdir()
        await self.servers.start()
        dsn = self.dsn
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute(SCHEMA.encode())
            await connection.execute(
                "INSERT INTO chaos.keys (key) SELECT unnest(%s::text[])", [[*KEYS, *RARE]]
            )
        if await self.install():
            raise RuntimeError("readside init failed")
        for name, role in self._roles():
            await self._add_node(name, role)
        for node in self.nodes:
            node.child.start()
        await self._add_users()
        for child in (*self.observers, *self.writers):
            child.start()

    async def install(self, **settings: str) -> int:
        """Run `readside init`, as an operator would; its exit code."""
        command = [sys.executable, "-m", "readside", "init", self.cast.app]
        with (self.directory / "init.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, env=self.environment() | settings, stdout=log, stderr=log
            )
        with awaited(process.pid):
            return await process.wait()

    @property
    def dsn(self) -> str:
        """PostgreSQL, not through a proxy."""
        return self.servers.address("postgres")

    def _roles(self) -> Sequence[tuple[str, str]]:
        if self.cast.nodes:
            return self.cast.nodes
        if self.setup.inline:
            return []
        if self.options.broker == "direct":
            return [("one", "all"), ("two", "all")]
        if self.regime.separate:
            return [
                ("relay1", "relay"),
                ("relay2", "relay"),
                ("projector1", "projector"),
                ("projector2", "projector"),
            ]
        return [("one", "all"), ("two", "all"), ("three", "projector")]

    async def _add_node(self, name: str, role: str) -> None:
        proxies = {
            server: Proxy(f"{name}/{server}", self.servers[server].port)
            for server in self.servers.servers
        }
        environment = self.environment()
        for server, proxy in proxies.items():
            environment |= await self._behind(proxy, server)
        node = Node(name, role, proxies)
        node.child = Child(
            name,
            [sys.executable, "-m", "readside", "run", self.cast.app, "--role", role],
            self.directory / f"node-{name}.log",
            environment,
        )
        self.nodes.append(node)

    async def _behind(self, proxy: Proxy, server: str) -> dict[str, str]:
        """Open a proxy; the setting which leads through it."""
        await proxy.open()
        old, new = f":{self.servers[server].port}", f":{proxy.port}"
        return {f"READSIDE_{_URLS[server]}": self._address(server).replace(old, new)}

    def _address(self, server: str) -> str:
        """The URL of a server, as readside is told it."""
        framed = server == "nats" and self.options.frames
        return self.servers.address(server) + ("?frames=on" if framed else "")

    def environment(self) -> dict[str, str]:
        """The environment of children that talk to the servers directly."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("READSIDE_", "PG"))}
        source = [str(self.options.code)] if self.options.code else []
        settings = {
            "PYTHONPATH": os.pathsep.join([*source, str(_ROOT)]),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.temporary),
            "CHAOS_MENDED": str(self.mended),
            "READSIDE_PARTITIONS": str(PARTITIONS),
            "READSIDE_SETTLE_DELAY": str(self.regime.settle_delay),
            "READSIDE_WRITE_STORE": self.dsn,
            "READSIDE_READ_STORE": self.documents,
            "READSIDE_BROKER": "direct:",
            "READSIDE_CAPTURE": self.capture,
            "CHAOS_MODE": self.setup.mode,
        }
        if self.options.broker == "nats":
            settings["READSIDE_BROKER"] = self._address("nats")
        return kept | settings | dict(self.cast.environment)

    async def _add_users(self) -> None:
        python, environment = sys.executable, self.environment()
        rate = str(self.options.rate / max(1, self.cast.writers))
        for number in range(self.cast.writers):
            name = f"writer-{number}"
            arguments = [python, "-m", "chaos.writer", name, rate]
            seed = f"{self.options.seed}{number}"
            settings = environment
            if self.setup.inline:
                proxy = Proxy(f"{name}/postgres", self.servers["postgres"].port)
                self._writers_proxies.append(proxy)
                settings = environment | await self._behind(proxy, "postgres")
            journal = str(self.directory / f"{name}.journal")
            log = self.directory / f"{name}.log"
            self.writers.append(Child(name, [*arguments, seed, journal], log, settings))
        for number in range(self.cast.observers):
            name = f"observer-{number}"
            journal = str(self.directory / f"{name}.journal")
            arguments = [python, "-m", "chaos.observer", self.documents, journal]
            self.observers.append(
                Child(name, arguments, self.directory / f"{name}.log", environment)
            )

    def tend(self) -> list[str]:
        """Bury orphans and start again what ended by itself; return its names."""
        bury({child.pid for child in self.children()} | self.servers.pids())
        ended = [child for child in self.children() if child.tend()]
        for child in ended:
            if self.changes and _OTHER_CAPTURE in child.last_words:
                child.unexpected.pop()
        return [child.name for child in ended]

    def tell_capture(self, capture: str) -> None:
        """Let everybody know who is started from now on."""
        self.capture = capture
        for child in self.children():
            child.tell("READSIDE_CAPTURE", capture)

    async def relay(self) -> Node | None:
        """The node whose relay holds the slot now, or None where that cannot be told."""
        try:
            async with asyncio.timeout(2):
                ports = await self._slot_ports()
        except (psycopg.Error, TimeoutError, OSError):
            return None
        for node in self.nodes:
            if ports & node.proxies["postgres"].local_ports():
                return node
        return None

    async def ask(self, query: str, values: Any = None) -> Any:
        """One row from PostgreSQL; None for no row and for no answer."""
        try:
            async with asyncio.timeout(2):
                connection: Any = await psycopg.AsyncConnection.connect(self.dsn, connect_timeout=2)
                async with connection:
                    return await (await connection.execute(query.encode(), values)).fetchone()
        except (psycopg.Error, TimeoutError, OSError):
            return None

    async def _slot_ports(self) -> set[int]:
        connection: Any = await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, connect_timeout=2
        )
        async with connection:
            found = await connection.execute(_POLLER if self.capture == "polling" else _WALSENDER)
            return {row[0] for row in await found.fetchall()}

    def stop(self) -> None:
        """End everything."""
        for child in self.children():
            child.kill()
        for node in self.nodes:
            for proxy in node.proxies.values():
                proxy.close()
        for proxy in self._writers_proxies:
            proxy.close()
        self.servers.stop()
        bury(set())
