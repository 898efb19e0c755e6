"""Free loopback ports."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from readside.core.errors import UnavailableError

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 15_000, 32_767
_TRIES = 200


def free_port() -> int:
    """A loopback port that nobody listens on.

    Not one that the system would hand out (port 0): those are also given to clients, so while a
    server is down a reconnecting client could take its port, or even connect to itself.

    Raises:
        UnavailableError: none was found.
    """
    low, high = _handed_out()
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST + 1)
        if not low <= port <= high and is_free(port):
            return port
    raise UnavailableError(f"No free port between {_FIRST} and {_LAST} on {LOOPBACK}.")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    try:
        # This sets SO_REUSEADDR, as the servers do: connections of a former one do not count.
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def _handed_out() -> tuple[int, int]:
    try:
        words = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        low, high = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return 32_768, 65_535
    # A machine that hands out everything leaves no better choice than any port.
    return (low, high) if low > _FIRST or high < _LAST else (0, 0)
