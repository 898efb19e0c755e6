"""Polling through a pooler in transaction mode: whatever a session would have to remember is not there."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

import readside
from readside.ports.ending import end
from readside.service import Service

_SSL, _GSS, _STARTUP = 80877103, 80877104, 196608


class Pooler:
    """Gives each transaction the next of a few connections, as PgBouncer does in transaction mode.

    Like that one it knows no startup options and no replication.
    """

    def __init__(self, dsn: str, size: int) -> None:
        self._parts = psycopg.conninfo.conninfo_to_dict(dsn)
        self._size = size
        self._free: asyncio.Queue[Backend] = asyncio.Queue()
        self._greeting = b""
        self._server: asyncio.Server | None = None
        #: Transactions that got another connection than the one before of the same client.
        self.changes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        for _ in range(self._size):
            self._free.put_nowait(await self._connect())
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._parts['user']}@127.0.0.1:{port}/{self._parts['dbname']}"

    async def _connect(self) -> Backend:
        reader, writer = await asyncio.open_connection(self._parts["host"], self._parts["port"])
        names = f"user\0{self._parts['user']}\0database\0{self._parts['dbname']}\0"
        body = names.encode() + b"client_encoding\0utf8\0\0"
        writer.write(struct.pack("!II", len(body) + 8, _STARTUP) + body)
        greeting = b""
        while True:
            kind, content = await message(reader)
            if kind == b"S":
                greeting += frame(kind, content)
            elif kind == b"Z":
                break
        self._greeting = greeting
        return Backend(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, reader, writer)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            if await client.greet(self._greeting):
                await client.work()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            await client.leave()
            if task is not None:
                self._tasks.discard(task)

    async def take(self) -> Backend:
        return await self._free.get()

    def give(self, backend: Backend) -> None:
        self._free.put_nowait(backend)

    async def replace(self, backend: Backend) -> None:
        """A client left in the middle of a transaction."""
        backend.writer.close()
        self.give(await self._connect())

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await end(list(self._tasks))
        while not self._free.empty():
            self._free.get_nowait().writer.close()


class Backend:
    """A connection to PostgreSQL."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


class Client:
    """A connection of somebody who takes the pooler for PostgreSQL."""

    def __init__(
        self, pooler: Pooler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._pooler = pooler
        self._reader = reader
        self._writer = writer
        self._backend: Backend | None = None
        self._last: Backend | None = None
        self._pump: asyncio.Task[None] | None = None
        self._unanswered = 0
        self._unfinished = False

    async def greet(self, greeting: bytes) -> bool:
        while True:
            size, code = struct.unpack("!II", await self._reader.readexactly(8))
            content = await self._reader.readexactly(size - 8)
            if code in (_SSL, _GSS):
                self._writer.write(b"N")
                continue
            if code != _STARTUP:
                return False
            names = content.split(b"\0")[0:-2:2]
            if refused := {b"options", b"replication"} & set(names):
                text = b"unsupported startup parameter: " + b" ".join(sorted(refused))
                error = b"SFATAL\0C08P01\0M" + text + b"\0\0"
                self._writer.write(frame(b"E", error))
                return False
            ready = frame(b"K", struct.pack("!II", 1, 1)) + frame(b"Z", b"I")
            self._writer.write(frame(b"R", struct.pack("!I", 0)) + greeting + ready)
            return True

    async def work(self) -> None:
        while True:
            kind, content = await message(self._reader)
            if kind == b"X":
                return
            if self._backend is None:
                backend = await self._pooler.take()
                self._pooler.changes += self._last not in (None, backend)
                self._backend = self._last = backend
                self._pump = asyncio.create_task(self._answer(backend))
            if kind in (b"Q", b"S"):
                self._unanswered += 1
            self._unfinished = kind not in (b"Q", b"S")
            self._backend.writer.write(frame(kind, content))

    async def _answer(self, backend: Backend) -> None:
        while True:
            kind, content = await message(backend.reader)
            self._writer.write(frame(kind, content))
            if kind == b"Z":
                self._unanswered -= 1
                if content == b"I" and not self._unanswered and not self._unfinished:
                    self._backend = None
                    self._pooler.give(backend)
                    return

    async def leave(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            if self._pump is not None:
                await end([self._pump])
            await self._pooler.replace(backend)
        self._writer.close()


def frame(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!I", len(content) + 4) + content


async def message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    (size,) = struct.unpack("!I", await reader.readexactly(4))
    return kind, await reader.readexactly(size - 4)


@asynccontextmanager
async def pooled(dsn: str, size: int) -> AsyncIterator[tuple[Pooler, str]]:
    pooler = Pooler(dsn, size)
    address = await pooler.start()
    try:
        yield pooler, address
    finally:
        await pooler.close()


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


async def test_what_a_session_would_remember_is_not_there(servers: Any) -> None:
    """The pooler of this test is one: a prepared statement and a setting are gone, options refused."""
    async with pooled(servers.write_store, 2) as (_, address):
        client = await psycopg.AsyncConnection.connect(
            address, autocommit=True, prepare_threshold=0
        )
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            for _ in range(3):
                await client.execute("SELECT %s::int", [1])
        await client.close()
        with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
            await psycopg.AsyncConnection.connect(address, options="-c work_mem=1MB")


async def test_relay_and_projectors_work_through_it(
    make_app: Any, servers: Any, broker_url: str
) -> None:
    app = make_app(broker_url, capture="polling", settle_delay=0.2)
    histories = app.projection(f"{app.name}-history", History)

    @histories.on
    def counted(event: Counted, history: History | None) -> History:
        return History([*(history.numbers if history else []), event.number])

    await (await app.runtime()).install()
    async with pooled(servers.write_store, 4) as (pooler, address):
        through = readside.App(
            app.name,
            write_store=address,
            broker=broker_url,
            read_store=servers.read_store,
            capture="polling",
            settle_delay=0.2,
        )
        service = asyncio.create_task(Service(await through.runtime(), app.projections).run())
        try:
            for number in range(1, 101):
                async with app.transaction() as tx:
                    tx.record(*(Counted(key, number) for key in "abc"))
            for key in "abc":
                view = await histories.get(key, after=tx.token, timeout=60)
                assert view == History(list(range(1, 101)))
            async with asyncio.timeout(60):  # and PostgreSQL is allowed to forget
                while not await _settled(servers.write_store, app.name):
                    await asyncio.sleep(0.05)
            assert not service.done()
        finally:
            await end([service])
            await through.close()
        assert pooler.changes > 100
    await app.close()


async def _settled(dsn: str, app: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn) as client:
        cursor = await client.execute(
            "SELECT NOT EXISTS (SELECT FROM readside.ticks t"
            " WHERE t.app = p.app AND t.busy AND t.lsn > p.settled_lsn)"
            " AND p.settled_lsn > c.origin_lsn FROM readside.pollers p"
            " JOIN readside.capture c USING (app) WHERE app = %s",
            [app],
        )
        return await cursor.fetchone() == (True,)
