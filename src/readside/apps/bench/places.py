"""Where the bench works: embedded servers in a temporary directory, or the user's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from readside.adapters.embedded import EmbeddedServers, locate
from readside.core.errors import SettingsError, UnavailableError
from readside.settings import Settings, load

_MEND = "install PostgreSQL's client programs, or let the bench use embedded servers"


class Places(NamedTuple):
    """The servers, and a directory for the processes that are started."""

    write_store: str
    #: NATS, or empty where the user's settings say direct:.
    broker: str
    read_store: str
    directory: Path
    #: The program of PostgreSQL that reads a slot.
    pg_recvlogical: Path
    #: Process numbers of the embedded servers, by name.
    servers: dict[str, int]

    def brokers(self, *paths: str) -> dict[str, str]:
        """The broker's URL for each of the paths that can be gone here."""
        return {path: url for path in paths if (url := self._broker(path))}

    def _broker(self, path: str) -> str:
        if path == "direct":
            return "direct:"
        if not self.broker:
            return ""
        # The last word counts, whatever the user's own URL says of frames.
        joint = "&" if "?" in self.broker else "?"
        return f"{self.broker}{joint}frames={'on' if path == 'frames' else 'off'}"

    @property
    def thrown_away(self) -> bool:
        """Whether all servers are embedded: then nothing has to be tidied up."""
        return len(self.servers) >= (3 if self.broker else 2)


@asynccontextmanager
async def places(*, nats: bool) -> AsyncIterator[Places]:
    """Start what the user has not configured; everything is gone at the end.

    Raises:
        SettingsError: the settings make no sense.
        UnavailableError: a program is missing.
    """
    settings = load()
    _keep_configuration_findable()
    services = settings.embedded if nats else settings.embedded - {"nats"}
    program = _pg_recvlogical(settings)
    home = Path(tempfile.mkdtemp(prefix="readside-bench-"))
    try:
        if not services:
            yield _own(settings, home, program)
            return
        # Durable, as a user's are: without fsync the write side would look cheaper than it is.
        group = EmbeddedServers(None, services=services, durable=True)
        async with group as found:
            yield Places(
                settings.write_store or found.write_store,
                _broker(settings.broker) or found.broker,
                settings.read_store or found.read_store,
                home,
                program,
                {name: group[name].pid for name in services},
            )
    finally:
        shutil.rmtree(home, ignore_errors=True)  # a small file


def _own(settings: Settings, home: Path, program: Path) -> Places:
    broker = _broker(settings.broker)
    return Places(settings.write_store, broker, settings.read_store, home, program, {})


def _broker(url: str) -> str:
    return "" if url.startswith("direct:") else url


def _keep_configuration_findable() -> None:
    named = os.environ.get("READSIDE_CONFIG")  # our processes run in another directory
    if named:
        os.environ["READSIDE_CONFIG"] = str(Path(named).absolute())


def _pg_recvlogical(settings: Settings) -> Path:
    name = "pg_recvlogical"
    if not settings.write_store:
        beside = locate.postgres_bin() / name
        if beside.exists():
            return beside
        raise UnavailableError(f"{beside.parent} has no {name}.", mend=_MEND)
    found = shutil.which(name)
    if found:
        return Path(found)
    raise SettingsError(
        f"{name}, which shows what PostgreSQL can send, is not in the PATH.", mend=_MEND
    )
