"""PostgreSQL, ready for logical replication."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import psycopg

from readside.adapters.embedded import family
from readside.adapters.embedded.account import (
    Account,
    may_reach,
    reachable_programs,
    server_account,
)
from readside.adapters.embedded.locate import postgres_bin
from readside.adapters.embedded.log import Log
from readside.adapters.embedded.ports import LOOPBACK
from readside.adapters.embedded.process import identity, run_to_end
from readside.adapters.embedded.spawn import Command
from readside.core.errors import SettingsError

_SETTINGS = """\
# Written by readside at every start. Use ALTER SYSTEM to override.
port = {port}
listen_addresses = '{host}'
unix_socket_directories = ''
cluster_name = '{name}'
wal_level = logical
# The role is called readside, and so is our schema: the user's own tables shall not land there.
search_path = 'public'
max_wal_senders = 20
max_replication_slots = 20
max_connections = 200
# A slot that nobody reads is given up before it fills the disk.
max_slot_wal_keep_size = '4GB'
wal_sender_timeout = '10s'
fsync = {durable}
full_page_writes = {durable}
"""
_OWNER = "readside"


class Postgres:
    """A PostgreSQL server with one database and one superuser, both called readside.

    Every program on this machine may connect without a password; no other machine can.
    """

    name = "postgres"
    # Fast shutdown waits for a replication client that does not confirm; immediate does not.
    stops = ((signal.SIGINT, 0.8), (signal.SIGQUIT, 0.3))

    def __init__(self, directory: Path, port: int, *, durable: bool) -> None:
        self.home = directory / self.name
        self.port = port
        self._durable = durable

    @property
    def address(self) -> str:
        """Where clients find it."""
        return self._url(_OWNER)

    def program(self) -> Path:
        """The postmaster's program."""
        return postgres_bin() / "postgres"

    async def prepare(self, log: Log) -> Command:
        """Make the data directory unless there is one, and write the settings.

        Raises:
            SettingsError: the data directory belongs to somebody else or is out of reach.
            UnavailableError: PostgreSQL is not installed or initdb failed.
        """
        account = server_account(self.home)
        programs = postgres_bin()
        if account:
            programs = reachable_programs(programs, account)
        if not self.home.exists():
            await self._make(programs, account, log)
        settings = _SETTINGS.format(
            port=self.port,
            host=LOOPBACK,
            name=identity(self.home),
            durable="on" if self._durable else "off",
        )
        (self.home / "readside.conf").write_text(settings)
        (self.home / "readside.conf").chmod(0o644)
        self._forget_dead_postmaster()
        return self._command(programs / "postgres", [], self.home, account)

    async def answers(self) -> bool:
        """Whether it, not a stranger, answers a query; makes the database if it is missing."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._url("postgres"),
                autocommit=True,  # CREATE DATABASE runs in no transaction
                sslmode="disable",
                options="",  # not those of PGOPTIONS
            )
        except psycopg.OperationalError:
            return False
        async with connection:
            name = await (await connection.execute("SHOW cluster_name")).fetchone()
            if name != (identity(self.home),):
                return False
            found = await connection.execute("SELECT FROM pg_database WHERE datname = %s", [_OWNER])
            if found.rowcount == 0:
                await connection.execute(f"CREATE DATABASE {_OWNER}")
        return True

    def _url(self, database: str) -> str:
        return f"postgresql://{_OWNER}@{LOOPBACK}:{self.port}/{database}"

    async def _make(self, programs: Path, account: Account | None, log: Log) -> None:
        # Under another name until it is whole: an initdb that was killed leaves half a cluster.
        made = self.home.with_name("postgres.new")
        family.kill(family.squatters(made.resolve(), {"postgres"}))  # its helpers may live on
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        if account:
            os.chown(made, account.uid, account.gid)
        options = ["-U", _OWNER, "--auth=trust", "--no-locale", "-E", "UTF8", "--no-instructions"]
        if not self._durable:
            options.append("--no-sync")
        await run_to_end(self._command(programs / "initdb", options, made, account), log)
        with (made / "postgresql.conf").open("a") as file:
            file.write("include_if_exists = 'readside.conf'\n")
        made.rename(self.home)

    def _command(
        self, program: Path, options: list[str], data: Path, account: Account | None
    ) -> Command:
        where = str(data)
        if account and not may_reach(account, data.parent):
            # The user may not walk through the folders above, /root for instance. It need not:
            # a working directory is entered as root and kept, and this link leads straight to
            # it. PostgreSQL never leaves its data directory, so the name is good in all its
            # processes. So the data stays where it was asked for, and nobody's folder is opened.
            if sys.platform != "linux":
                raise SettingsError(
                    f"{data} is closed to user {account.uid}, which PostgreSQL runs as.",
                    mend="choose a directory that every user may enter, or do not run as root",
                )
            where = "/proc/self/cwd"
        # SIGQUIT ends the postmaster and at once all below it; after a SIGKILL they would linger.
        return Command([program, "-D", where, *options], data, account, signal.SIGQUIT)

    def _forget_dead_postmaster(self) -> None:
        # The process number in it may belong to a stranger by now, and PostgreSQL would refuse.
        # We own the directory, and on Linux whatever still worked in it has just been ended.
        if sys.platform == "linux":
            (self.home / "postmaster.pid").unlink(missing_ok=True)
