"""Command lines for a look into the servers with their own clients."""

from __future__ import annotations

import shlex
import shutil

from readside.adapters.embedded import locate
from readside.core.errors import ReadsideError


def psql(url: str, *arguments: str) -> str:
    """Open PostgreSQL's shell, the one beside the embedded server where none is in the PATH."""
    program = "psql"
    if not shutil.which(program):
        try:
            beside = locate.postgres_bin() / program
        except ReadsideError:
            beside = None
        program = str(beside) if beside and beside.exists() else program
    return shlex.join([program, url, *arguments])


def nats(url: str, *arguments: str) -> str:
    """Call the command-line client of NATS."""
    return shlex.join(["nats", "--server", url, *arguments])


def valkey(url: str, *arguments: str) -> str:
    """Call Valkey's shell, or Redis' where only that is there."""
    names = ("valkey-cli", "redis-cli")
    program = next(filter(shutil.which, names), names[0])
    return shlex.join([program, "-u", url, *arguments])


def missing_clients() -> str:
    """Names those of the clients that are not installed here; empty if all are."""
    absent = [
        what
        for what, names in {
            "nats (github.com/nats-io/natscli)": ("nats",),
            "valkey-cli or redis-cli": ("valkey-cli", "redis-cli"),
        }.items()
        if not any(map(shutil.which, names))
    ]
    return f"not installed here: {', '.join(absent)}" if absent else ""
