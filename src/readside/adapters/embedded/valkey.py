"""Valkey, which speaks the protocol of Redis."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path

from readside.adapters.embedded.locate import valkey_server
from readside.adapters.embedded.log import Log
from readside.adapters.embedded.ports import LOOPBACK
from readside.adapters.embedded.spawn import Command


class Valkey:
    """A Valkey server that keeps every acknowledged write when its process dies."""

    name = "valkey"
    stops = ((signal.SIGTERM, 0.8),)

    def __init__(self, directory: Path, port: int) -> None:
        self.home = directory / self.name
        self.port = port

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def program(self) -> Path:
        """The server's program."""
        return valkey_server()

    async def prepare(self, log: Log) -> Command:  # noqa: ARG002  of the protocol
        """Make its directory."""
        self.home.mkdir(exist_ok=True)
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.home),
            "save": "",
            # Written before the client is answered, so a kill loses nothing; a power cut a second.
            "appendonly": "yes",
            "appendfsync": "everysec",
            # Any other policy drops documents silently.
            "maxmemory-policy": "noeviction",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        return Command([self.program(), *arguments], self.home)

    async def answers(self) -> bool:
        """Whether it answers a PING (with an error while it loads) and works in our directory."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        with closing(writer):
            writer.write(b"PING\r\nCONFIG GET dir\r\n")
            if await reader.readline() != b"+PONG\r\n":
                return False
            # An array of two strings, each after its length: the name and the value.
            answer = [(await reader.readline()).rstrip(b"\r\n") for _ in range(5)]
            return answer[-1] == os.fsencode(self.home)
