"""The group: PostgreSQL, NATS and Valkey of one directory."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from readside.adapters.embedded.claim import Claim, Record
from readside.adapters.embedded.nats import Nats
from readside.adapters.embedded.ports import free_port, is_free
from readside.adapters.embedded.postgres import Postgres
from readside.adapters.embedded.process import Recipe, Server, answers, end_leftovers
from readside.adapters.embedded.valkey import Valkey
from readside.core.errors import SettingsError, UnavailableError

log = logging.getLogger("readside.embedded")

SERVICES = frozenset({"postgres", "nats", "valkey"})
#: Seconds to wait for another process that is starting the servers of the same directory.
ATTACH_SECONDS = 30.0
_POLL_SECONDS = 0.05
_PREFIX = "readside-"
#: Seconds after which an unowned temporary directory is nobody's who is just beginning.
_ABANDONED_SECONDS = 60.0


@dataclass(frozen=True)
class Addresses:
    """Where the servers are; the address of a service that was not asked for is empty.

    Attributes:
        write_store: PostgreSQL, `postgresql://readside@127.0.0.1:PORT/readside`.
        broker: NATS, `nats://127.0.0.1:PORT`.
        read_store: Valkey, `redis://127.0.0.1:PORT/0`.
    """

    write_store: str
    broker: str
    read_store: str


class EmbeddedServers:
    """Real servers as child processes, for development, tests and the demo.

    They listen on 127.0.0.1 only and ask nobody for a password. On Linux they end with this
    process even if it is killed (except PostgreSQL while it is paused; the next owner of the
    directory ends it); elsewhere only an orderly end of this process ends them.

    A directory has one owner at a time. Whoever else starts its servers is given the addresses
    of the running ones, controls none of them, and loses them when the owner stops.

    Args:
        directory: where the data lives and survives restarts, with stable ports; None for a
            temporary directory that is removed at stop.
        services: which of `postgres`, `nats` and `valkey` to run.
        durable: whether PostgreSQL survives a power cut too; None for: in a lasting directory.

    Raises:
        SettingsError: an unknown service.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        services: frozenset[str] = SERVICES,
        durable: bool | None = None,
    ) -> None:
        if unknown := services - SERVICES:
            known = ", ".join(sorted(SERVICES))
            raise SettingsError(f"No embedded service {', '.join(unknown)}; there are {known}.")
        self._wanted = directory
        self._services = services
        self._durable = directory is not None if durable is None else durable
        self._directory: Path | None = None
        self._claim: Claim | None = None
        self._servers: dict[str, Server] = {}
        self._ports: dict[str, int] = {}
        self._addresses: Addresses | None = None
        self._pid = os.getpid()
        _groups.add(self)

    def __getitem__(self, service: str) -> Server:
        """The control of one server: `pid`, `kill()`, `start()`, `pause()`, `resume()`.

        Raises:
            UnavailableError: it was not started here (another process owns it).
        """
        try:
            return self._servers[service]
        except KeyError:
            raise UnavailableError(f"{service} was not started by this object.") from None

    @property
    def attached(self) -> bool:
        """Whether the servers belong to another owner of the same directory."""
        return self._addresses is not None and not self._servers

    async def start(self) -> Addresses:
        """Start all servers at once and wait until each answers; at once if they run already.

        Returns:
            Their addresses.

        Raises:
            SettingsError: the directory or a READSIDE_… variable cannot be used.
            UnavailableError: a server is not installed or did not start.
        """
        if self._addresses:
            return self._addresses
        try:
            directory = self._directory = self._open()
            claim = self._claim = Claim(directory)
            if await self._own_or_attach(directory, claim):
                await self._start_own(directory, claim)
            else:
                log.info("process %s runs them already, in %s", claim.read().owner, directory)
        except OSError as error:
            self.stop_now()
            raise SettingsError(
                f"{self._directory or self._wanted or 'a temporary directory'} cannot be used: {error}.",
                mend="choose a directory that this user may write",
            ) from error
        except BaseException:
            self.stop_now()
            raise
        self._addresses = _addresses(self._recipes(directory, self._ports))
        return self._addresses

    async def stop(self) -> None:
        """Stop what was started here; a temporary directory is removed. Takes under 1.5 s."""
        # In a thread because ending is a series of blocking waits; a cancelled caller leaves
        # the thread to finish the work.
        await asyncio.to_thread(self.stop_now)

    def stop_now(self) -> None:
        """The same without an event loop, for the end of the process."""
        if self._pid != os.getpid():  # a fork of the owner ends; the servers are not its own
            return
        atexit.unregister(self.stop_now)
        self._addresses = None
        if self._servers and self._claim:
            with suppress(OSError):  # a full disk must not keep the servers alive
                self._claim.write(self._ports, running=[])
        hurry = self._wanted is None  # what is thrown away need not be written out
        servers = list(self._servers.values())
        for server in servers:
            server.ask_to_stop(hurry=hurry)
        for server in servers:
            server.finish_stopping(hurry=hurry)
        self._servers = {}
        if self._directory and self._wanted is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._claim:
            self._claim.release()
        self._directory = self._claim = None

    def end_now(self) -> None:
        """Kill what was started here, also in the middle of a start or a stop, and clear up."""
        if self._pid != os.getpid():
            return
        for server in list(self._servers.values()):
            server.kill()
        if self._directory and self._wanted is None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def revive(self) -> None:
        """Start again what was started here and has died.

        Raises:
            UnavailableError: as `start` does.
        """
        for server in list(self._servers.values()):
            if not server.running:
                log.warning("%s has died; starting it again", server.name)
                await server.start()

    async def __aenter__(self) -> Addresses:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _open(self) -> Path:
        if self._wanted is None:
            _remove_abandoned()
            return Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        directory = self._wanted.expanduser().resolve()
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    async def _own_or_attach(self, directory: Path, claim: Claim) -> bool:
        deadline = time.monotonic() + ATTACH_SECONDS
        while not claim.take():
            if await self._attach(directory, claim.read()):
                return False
            if time.monotonic() > deadline:
                owner = claim.read().owner
                raise UnavailableError(
                    f"Process {owner} owns {directory}, but its servers do not answer.",
                    mend=f"end process {owner} or choose another directory",
                )
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def _attach(self, directory: Path, record: Record) -> bool:
        if not record.running:
            return False
        if missing := self._services.difference(record.running):
            raise UnavailableError(
                f"Process {record.owner} runs the servers of {directory} "
                f"without {', '.join(sorted(missing))}.",
                mend=f"end process {record.owner} or choose another directory",
            )
        self._ports = {name: record.ports[name] for name in self._services}
        recipes = self._recipes(directory, self._ports).values()
        return all(await asyncio.gather(*map(answers, recipes)))

    async def _start_own(self, directory: Path, claim: Claim) -> None:
        self._pid = os.getpid()
        atexit.register(self.stop_now)
        remembered = claim.read().ports
        for recipe in self._recipes(directory, dict.fromkeys(self._services, 0)).values():
            end_leftovers(recipe)  # before the ports are tried: they may hold those
        chosen = {name: _port(remembered.get(name)) for name in sorted(self._services)}
        self._ports = remembered | chosen
        claim.write(self._ports, running=[])
        for name, recipe in self._recipes(directory, chosen).items():
            self._servers[name] = Server(recipe, directory / f"{name}.log")
        log.info("starting %s in %s", ", ".join(self._servers), directory)
        await _start_all(self._servers.values())
        self._ports |= {name: server.port for name, server in self._servers.items()}
        claim.write(self._ports, running=sorted(self._services))

    def _recipes(self, directory: Path, ports: Mapping[str, int]) -> dict[str, Recipe]:
        made: dict[str, Recipe] = {
            "postgres": Postgres(directory, ports.get("postgres", 0), durable=self._durable),
            "nats": Nats(directory, ports.get("nats", 0)),
            "valkey": Valkey(directory, ports.get("valkey", 0)),
        }
        return {name: recipe for name, recipe in made.items() if name in self._services}


_groups: weakref.WeakSet[EmbeddedServers] = weakref.WeakSet()


def end_at_once() -> None:
    """Kill the servers of all groups: the process is about to end without order."""
    for group in list(_groups):
        group.end_now()


async def _start_all(servers: Iterable[Server]) -> None:
    try:
        async with asyncio.TaskGroup() as starts:
            for server in servers:
                starts.create_task(server.start_on_some_port())
    except BaseExceptionGroup as failures:
        # The others were cancelled; one reason is what a person can act on.
        raise failures.exceptions[0] from None


def _addresses(recipes: Mapping[str, Recipe]) -> Addresses:
    found = {name: recipe.address for name, recipe in recipes.items()}
    return Addresses(
        write_store=found.get("postgres", ""),
        broker=found.get("nats", ""),
        read_store=found.get("valkey", ""),
    )


def _port(remembered: int | None) -> int:
    return remembered if remembered and is_free(remembered) else free_port()


def _remove_abandoned() -> None:
    """Remove the temporary directories of owners that were killed, 40 MB each."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = directory.lstat()
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _ABANDONED_SECONDS:
                continue
            if not (directory / "servers.lock").exists():
                continue
            claim = Claim(directory)
            if claim.take():
                shutil.rmtree(directory, ignore_errors=True)
                claim.release()
