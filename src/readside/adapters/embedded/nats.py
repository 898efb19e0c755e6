"""NATS with JetStream."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import closing
from pathlib import Path

from readside.adapters.embedded.locate import nats_server
from readside.adapters.embedded.log import Log
from readside.adapters.embedded.ports import LOOPBACK
from readside.adapters.embedded.process import identity
from readside.adapters.embedded.spawn import Command

_MAX_PAYLOAD = 8 * 1024 * 1024
# One request to JetStream without a client library: what accounts hold, answered to an inbox.
_ASK = b'CONNECT {"verbose":false}\r\nSUB _INBOX.readside 1\r\nPUB $JS.API.INFO _INBOX.readside 0\r\n\r\n'


class Nats:
    """A NATS server whose streams are files."""

    name = "nats"
    stops = ((signal.SIGTERM, 0.8),)

    def __init__(self, directory: Path, port: int) -> None:
        self.home = directory / self.name
        self.port = port

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"nats://{LOOPBACK}:{self.port}"

    def program(self) -> Path:
        """The server's program."""
        return nats_server()

    async def prepare(self, log: Log) -> Command:  # noqa: ARG002  of the protocol
        """Make its directory and write its configuration."""
        self.home.mkdir(exist_ok=True)
        configuration = self.home / "nats.conf"
        configuration.write_text(
            f'listen: "{LOOPBACK}:{self.port}"\n'
            f"server_name: {identity(self.home)}\n"
            f"max_payload: {_MAX_PAYLOAD}\n"
            # JSON's quotes and escapes are those of this format.
            f"jetstream {{ store_dir: {json.dumps(str(self.home), ensure_ascii=False)} }}\n"
        )
        return Command([self.program(), "-c", configuration], self.home)

    async def answers(self) -> bool:
        """Whether JetStream answers a request about its account."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        with closing(writer):
            word, _, facts = (await reader.readline()).partition(b" ")
            if word != b"INFO" or json.loads(facts).get("server_name") != identity(self.home):
                return False
            writer.write(_ASK)
            while not (header := await reader.readline()).startswith(b"MSG "):
                if not header:
                    return False
            return b'"error"' not in await reader.readexactly(int(header.split()[-1]))
