"""Faces are tested as people meet them: the command in a process of its own, real servers, words read."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from readside.adapters.embedded import Addresses, EmbeddedServers, locate
from readside.adapters.embedded.ports import LOOPBACK, free_port
from readside.adapters.postgres.installation import Names

#: Seconds after which a test gives up; nothing here needs a tenth of it.
PATIENCE = 240.0
SECRET = "s3cr3t-Pa55"
COMMAND = str(Path(sys.executable).with_name("readside"))

MODULE = """
import readside

app = readside.App("{name}")


class UserCreated(readside.Event, key="id"):
    id: int
    name: str


class User(readside.View):
    id: int
    name: str


users = app.projection("user", User)


@users.on
def created(event: UserCreated) -> User:
    return User(event.id, event.name)
"""


@dataclass
class Said:
    """What a command that has ended left behind."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


class Started:
    """A command that runs; its words are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""
        self._words: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._words.put(line)
        self._words.put(None)

    def until(self, *words: str, after: int = 0) -> str:
        """Wait until each of the words was said after this point of the text; return the text."""
        deadline = time.monotonic() + PATIENCE
        while not all(word in self.text[after:] for word in words):
            try:
                line = self._words.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{words} not said, code {self.process.poll()}:\n{self.text}")
            self.text += line
        return self.text

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end, with all that is still said."""
        code = self.process.wait(PATIENCE)
        while (line := self._words.get(timeout=PATIENCE)) is not None:
            self.text += line
        return code

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """End it; return its code and how many seconds that took."""
        began = time.monotonic()
        self.send(number)
        code = self.process.wait(PATIENCE)
        took = time.monotonic() - began
        self.ended()
        return code, took

    def close(self) -> None:
        self._reader.join(PATIENCE)
        self.process.stdout.close()


class Desk:
    """A directory with an app in it, and the command."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith("READSIDE_")
        }
        (directory / "shop.py").write_text(MODULE.format(name=name))
        self._started: list[Started] = []

    def use(self, **settings: str) -> None:
        """Set READSIDE_…"""
        self.environment |= {f"READSIDE_{key.upper()}": str(v) for key, v in settings.items()}

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def extend(self, text: str) -> None:
        """Add to the module of the app."""
        module = self.directory / "shop.py"
        module.write_text(module.read_text() + text)

    def _options(self, environment: dict[str, str]) -> dict[str, object]:
        return {
            "cwd": self.directory,
            "env": self.environment | environment,
            "stdin": subprocess.DEVNULL,
            "text": True,
        }

    def do(self, *arguments: str, **environment: str) -> Said:
        """Run a command to its end."""
        return self._run([COMMAND, *arguments], environment)

    def run_program(self) -> Said:
        """Run the module of the app as a program, to its end."""
        return self._run([sys.executable, "shop.py"], {})

    def _run(self, command: list[str], environment: dict[str, str]) -> Said:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            **self._options(environment),
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **environment: str) -> Started:
        """Start a command that is to run on; both of its outputs become one text."""
        process = subprocess.Popen(
            [COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self._options(environment),
        )
        self._started.append(Started(process))
        return self._started[-1]

    def close(self) -> None:
        for started in self._started:
            if started.process.poll() is None:
                started.process.kill()
            started.process.wait(PATIENCE)
            started.close()


@pytest.fixture
def desk(tmp_path: Path, unique: str, servers: Addresses) -> Iterator[Desk]:
    desk = Desk(tmp_path, unique)
    yield desk
    desk.close()
    with redis.Redis.from_url(servers.read_store) as client:
        client.delete("readside:user:app")  # every test's app has documents of this name


@dataclass
class Plain:
    """A server started with options of our own, which can die and come back."""

    arguments: list[str]
    home: Path
    url: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(self.arguments, cwd=self.home, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.process = None


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Callable[..., Plain]]:
    """Makes NATS servers from lines of configuration."""
    made: list[Plain] = []

    def make(*lines: str, user: str = "", start: bool = True) -> Plain:
        home = tmp_path / f"nats{len(made)}"
        home.mkdir()
        port = free_port()
        configuration = home / "nats.conf"
        configuration.write_text("\n".join([f'listen: "{LOOPBACK}:{port}"', *lines]))
        url = f"nats://{user}{LOOPBACK}:{port}"
        made.append(Plain([str(locate.nats_server()), "-c", str(configuration)], home, url))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Callable[..., Plain]]:
    """Makes Valkey servers from options."""
    made: list[Plain] = []

    def make(*options: str, user: str = "", start: bool = True) -> Plain:
        home = tmp_path / f"valkey{len(made)}"
        home.mkdir()
        port = free_port()
        own = ["--bind", LOOPBACK, "--port", str(port), "--save", ""]
        url = f"redis://{user}{LOOPBACK}:{port}/0"
        made.append(Plain([str(locate.valkey_server()), *own, *options], home, url))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


_HBA = """\
host all readside 127.0.0.1/32 trust
host replication readside 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


@dataclass
class Own:
    """Servers of this test alone, for it to break."""

    group: EmbeddedServers
    write_store: str
    broker: str
    read_store: str

    def urls(self) -> dict[str, str]:
        return {
            "write_store": self.write_store,
            "broker": self.broker,
            "read_store": self.read_store,
        }

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.write_store, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
async def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    group = EmbeddedServers(tmp_path_factory.mktemp("own"), durable=False)
    addresses = await group.start()
    yield Own(group, addresses.write_store, addresses.broker, addresses.read_store)
    group.stop_now()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """A PostgreSQL that asks everybody but its owner for a password."""
    import asyncio

    directory = tmp_path_factory.mktemp("strict")
    group = EmbeddedServers(directory, services=frozenset({"postgres"}), durable=False)
    own = Own(group, asyncio.run(group.start()).write_store, "", "")
    (directory / "postgres" / "pg_hba.conf").write_text(_HBA)
    own.sql("SELECT pg_reload_conf()")
    own.sql(f"CREATE ROLE plain LOGIN PASSWORD '{SECRET}'")
    own.sql(f"CREATE ROLE mirror LOGIN REPLICATION PASSWORD '{SECRET}'")
    yield own
    group.stop_now()


@pytest.fixture
def freed() -> Iterator[Callable[[Own, str], None]]:
    """Drops the slots of apps after the test, so that a module's server never runs out of them."""
    seen: list[tuple[str, str]] = []
    yield lambda own, app: seen.append((own.write_store, Names(app).slot))
    for dsn, slot in seen:
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(dsn, autocommit=True) as connection,
        ):
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE slot_name = %s",
                [slot],
            )


def last_json(text: str) -> dict[str, object]:
    return json.loads(text.splitlines()[-1])
