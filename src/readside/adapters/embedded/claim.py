"""Who owns a directory of servers, and what the owner tells the others."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec


class Record(msgspec.Struct, frozen=True):
    """What `servers.json` says.

    Attributes:
        owner: the process id of the last owner.
        ports: the port of each service; kept while they are down, so that addresses are stable.
        running: the services that answered and that nobody has stopped since.
    """

    owner: int = 0
    ports: dict[str, int] = {}
    running: list[str] = []


class Claim:
    """The right to run the servers of a directory, held by at most one process at a time.

    The lock is the system's and ends with the process, so no crash leaves one behind.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = directory / "servers.lock"
        self._record = directory / "servers.json"
        self._held: int | None = None

    def take(self) -> bool:
        """Try to become the owner; False when another process, or object, is."""
        # Python's descriptors are not inherited: a server must not keep its owner's lock.
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held = descriptor
        return True

    def release(self) -> None:
        """Give it up; does nothing unless it is held."""
        if self._held is not None:
            # Closing alone would leave it to a fork of us that has the descriptor too.
            fcntl.flock(self._held, fcntl.LOCK_UN)
            os.close(self._held)
        self._held = None

    def read(self) -> Record:
        """What the owner, or the last one, wrote; empty if that is nothing readable."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return Record()

    def write(self, ports: dict[str, int], *, running: list[str]) -> None:
        """Tell the others; for the owner only."""
        staged = self._record.with_suffix(".new")
        record = Record(owner=os.getpid(), ports=ports, running=running)
        staged.write_bytes(msgspec.json.encode(record) + b"\n")
        staged.replace(self._record)
