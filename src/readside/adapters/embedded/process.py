"""One server process: started, awaited until it answers, stopped; and killed or paused at will."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from readside.adapters.embedded import family
from readside.adapters.embedded.log import Log
from readside.adapters.embedded.ports import free_port, is_free
from readside.adapters.embedded.spawn import Command, spawn
from readside.core.errors import UnavailableError

_notes = logging.getLogger("readside.embedded")

#: Seconds that a server may need until it answers: recovery after a crash takes its time.
START_SECONDS = 60.0
_POLL_SECONDS = 0.01
_PROBE_SECONDS = 2.0


class Recipe(Protocol):
    """What is particular about one kind of server.

    Attributes:
        port: the loopback port it listens on.
    """

    port: int

    @property
    def name(self) -> str:
        """What people call it; its folder and log file are called so too."""

    @property
    def home(self) -> Path:
        """Its data directory, which is its working directory too."""

    @property
    def stops(self) -> tuple[tuple[signal.Signals, float], ...]:
        """Signals that ask it to end, gentle first, and the seconds each is given."""

    @property
    def address(self) -> str:
        """Where clients find it, a URL."""

    def program(self) -> Path:
        """The server's executable file; raises as `locate` does."""

    async def prepare(self, log: Log) -> Command:
        """Make the data directory and configuration; safe to repeat; returns what to run."""

    async def answers(self) -> bool:
        """Whether it, and no stranger, serves clients now; may raise OSError."""


class Server:
    """A server as a child process of this one."""

    def __init__(self, recipe: Recipe, log: Path) -> None:
        self._recipe = recipe
        self._log = Log(log)
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0.0

    @property
    def name(self) -> str:
        """What people call it: postgres, nats or valkey."""
        return self._recipe.name

    @property
    def port(self) -> int:
        """Its loopback port; it stays the same when the server is started again."""
        return self._recipe.port

    @property
    def running(self) -> bool:
        """Whether the process exists (also while it is paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; of PostgreSQL the postmaster's.

        Raises:
            UnavailableError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise UnavailableError(f"{self.name} is not running.")
        return self._process.pid

    async def answers(self) -> bool:
        """Whether it serves clients now, asked in its own protocol."""
        return await answers(self._recipe)

    async def start_on_some_port(self) -> None:
        """Start it; on another port if somebody else took its port meanwhile.

        Raises:
            UnavailableError: as `start` does.
        """
        try:
            await self.start()
        except UnavailableError:
            if is_free(self.port):
                raise
            self._recipe.port = free_port()
            await self.start()

    async def start(self) -> None:
        """Start it and wait until it answers; does nothing while it runs.

        Raises:
            UnavailableError: it ended or did not answer in time; says where its log is.
        """
        if self.running:
            return
        began = time.monotonic()
        try:
            self._log.begin()
            end_leftovers(self._recipe)
            command = await self._recipe.prepare(self._log)
            with self._log.open() as log:
                self._process = spawn(command, log)
        except OSError as error:
            raise UnavailableError(f"{self.name} cannot be started: {error}.") from error
        try:
            await self._until_it_answers()
            _notes.info("%s is there after %.1f s", self.name, time.monotonic() - began)
        except BaseException:
            self.kill()
            raise

    def ask_to_stop(self, *, hurry: bool = False) -> None:
        """Send the gentle stop signal, or the firmest in a hurry, and return."""
        self.resume()
        self._asked = time.monotonic()
        self._signal(self._stops(hurry=hurry)[0][0])

    def finish_stopping(self, *, hurry: bool = False) -> None:
        """Wait until it has ended, blocking, with ever firmer signals."""
        gentle, *firmer = self._stops(hurry=hurry)
        if self._ended(self._asked + gentle[1] - time.monotonic()):
            return
        for number, seconds in firmer:
            self._signal(number)
            if self._ended(seconds):
                return
        self.kill()

    def kill(self) -> None:
        """End it and everything below it at once, as a crash would, and wait until it is gone."""
        if self._process is not None:
            kill_tree(self._process)

    def pause(self) -> None:
        """Freeze it with everything below it: connections stay open, nothing answers."""
        family.freeze_tree(self.pid)

    def resume(self) -> None:
        """Let it go on, whoever has paused it: of two pauses that overlap, the last end ends both."""
        if self.running:
            family.send([*family.descendants(self.pid), self.pid], signal.SIGCONT)

    def _stops(self, *, hurry: bool) -> tuple[tuple[signal.Signals, float], ...]:
        return self._recipe.stops[-1:] if hurry else self._recipe.stops

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # checks that it has not ended

    def _ended(self, seconds: float) -> bool:
        return family.wait_until(lambda: not self.running, max(seconds, 0.0))

    async def _until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise UnavailableError(f"{self.name} ended at its start. {self._log.tail()}")
            if await self.answers():
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise UnavailableError(
            f"{self.name} does not answer after {START_SECONDS:.0f} s. {self._log.tail()}"
        )


def identity(home: Path) -> str:
    """What a server calls itself, so that a stranger on its port is not taken for it."""
    return "readside-" + hashlib.sha256(str(home).encode(errors="surrogateescape")).hexdigest()[:12]


async def answers(recipe: Recipe) -> bool:
    """Whether the server of this recipe serves clients now; False for every kind of not yet."""
    with suppress(OSError, EOFError, ValueError, TimeoutError):
        return await asyncio.wait_for(recipe.answers(), _PROBE_SECONDS)
    return False


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End a child process and everything below it at once, and wait until it is gone."""
    if process.poll() is not None:
        return
    children = family.freeze_tree(process.pid)
    family.send(children, signal.SIGKILL)
    process.kill()
    process.wait()
    family.kill(children)


def end_leftovers(recipe: Recipe) -> None:
    """End what an owner that was killed left behind; for the owner of the directory only.

    Its servers got a death signal, but may not have followed it yet, or be paused.
    """
    # Looked for by the file behind the links, as the system names it.
    programs = {recipe.program().resolve().name}
    family.kill(family.squatters(recipe.home.resolve(), programs))


async def run_to_end(command: Command, log: Log) -> None:
    """Run a program that ends by itself.

    Raises:
        UnavailableError: it failed; with the end of its log.
    """
    with log.open() as file:
        process = spawn(command, file)
    try:
        while process.poll() is None:  # noqa: ASYNC110  no watcher works in every thread's loop
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        kill_tree(process)
    if process.returncode:
        raise UnavailableError(f"{Path(command.arguments[0]).name} failed. {log.tail()}")
