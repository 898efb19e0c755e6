"""A backlog of events, drained as often as wanted: a second slot remembers where it begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import psycopg
from psycopg import sql

from readside.adapters.postgres.connection import opened
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.names import Names
from readside.apps.bench.chores import tidy_log, tidy_table
from readside.apps.bench.places import Places
from readside.apps.bench.plan import Backlog
from readside.apps.bench.subject import FILE, Description, UserSaved, saved
from readside.core.position import parse_lsn
from readside.wiring import store_for
from readside.write.outbox import row_of

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Tell = Callable[[str], None]

log = logging.getLogger("readside.bench")

_NOTES = ("progress", "leases", "workers", "rewinds", "parked_events", "parked_documents")
_COPY = (
    b"COPY readside.outbox (id, app, aggregatetype, aggregateid, type, version, payload) FROM STDIN"
)


#: Bytes of the largest payload, as readside has it where nobody says otherwise.
LARGEST = 1_000_000


class Filled(NamedTuple):
    """Where a backlog ends."""

    #: PostgreSQL's position before the last transaction, and the events up to there.
    end: int
    events_before_end: int


class Ground:
    """One app in the write store, with what it needs to be run again from its beginning."""

    def __init__(
        self, places: Places, shape: Backlog, connection: Connection, name: str = ""
    ) -> None:
        self.places = places
        self.shape = shape
        self.name = name or f"bench_{uuid4().hex[:10]}"
        self.names = Names(self.name)
        self.origin = f"{self.names.slot}_origin"
        #: A table of the user's own, for what costs the write side.
        self.rows = f"{self.name}_rows"
        self.connection = connection
        self._capture: tuple[Any, ...] = ()

    def description(self, broker: str) -> Description:
        """The app with this broker."""
        places, shape = self.places, self.shape
        return Description(
            self.name, places.write_store, broker, places.read_store, shape.partitions, shape.projections
        )  # fmt: skip

    def describe(self, broker: str) -> Description:
        """Write down for the processes which app they run."""
        description = self.description(broker)
        path = self.places.directory / FILE
        path.touch(mode=0o600)  # the addresses may hold passwords
        path.write_bytes(msgspec.json.encode(description))
        return description

    async def install(self) -> None:
        """Install the app, and keep its beginning."""
        places = self.places
        await install(places.write_store, self.name, self.shape.partitions, LARGEST)
        if self.shape.older:
            await self._age()
        await self._query(
            "SELECT pg_copy_logical_replication_slot(%s, %s)", self.names.slot, self.origin
        )
        (self._capture,) = await self._query(
            "SELECT confirmed_lsn, origin_lsn FROM readside.capture WHERE app = %s", self.name
        )

    async def _age(self) -> None:
        """Put rows into the outbox, and let the app begin after them."""
        await self._query(
            "INSERT INTO readside.outbox (app, aggregatetype, aggregateid, type, payload)"
            " SELECT %s, 'user', n::text, 'user.saved', json_build_object('id', n, 'about', %s::text)"
            " FROM generate_series(1, %s) n",
            self.name, "old " * (self.shape.payload // 4), self.shape.older,
        )  # fmt: skip
        await self._free(self.names.slot)
        ((lsn,),) = await self._query(
            "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')",
            self.names.slot,
        )
        await self._query(
            "UPDATE readside.capture SET confirmed_lsn = %s, origin_lsn = %s WHERE app = %s",
            parse_lsn(lsn), parse_lsn(lsn), self.name,
        )  # fmt: skip

    async def fill(self, tell: Tell) -> Filled:
        """Write the backlog, and return where it ends."""
        shape = self.shape
        each = shape.per_transaction
        end = before = 0
        await self.connection.execute("SET synchronous_commit = off")  # the log is the same
        for start in range(0, shape.events, each):
            if start + each >= shape.events:
                end, before = await self.where(), start
            stop = min(start + each, shape.events)
            lines = [
                self._line(saved(n, shape.documents, shape.payload)) for n in range(start, stop)
            ]
            async with self.connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                await copy.write(b"".join(lines))
            if start // each % 100 == 0:
                tell(f"writing {shape.events:,} events: {stop:,}")
        await self.connection.execute("RESET synchronous_commit")
        await tidy_table(self.connection, self.names.branch)
        return Filled(end, before)

    def _line(self, event: UserSaved) -> bytes:
        id_, app, kind, key, wire, version, payload, _ = row_of(self.name, event, None, LARGEST)
        line = f"{id_}\t{app}\t{kind}\t{key}\t{wire}\t{version}\t{payload}\n"
        return line.encode()

    async def where(self) -> int:
        """How far PostgreSQL has written its log."""
        ((lsn,),) = await self._query("SELECT pg_current_wal_insert_lsn()::text")
        return parse_lsn(lsn)

    async def rewind(self) -> None:
        """Let the app be as after its installation, with the backlog ahead of it."""
        await self._free(self.names.slot)
        await self._query(
            "SELECT pg_copy_logical_replication_slot(%s, %s)", self.origin, self.names.slot
        )
        await self._query(
            "UPDATE readside.capture SET confirmed_lsn = %s, origin_lsn = %s, confirmed_heads = '[]',"
            " shipped_lsn = 0, shipped_heads = '[]', samples = '{}', shipped_at = 0,"
            " state = 'created' WHERE app = %s",
            *self._capture,
            self.name,
        )
        await self._forget()
        await tidy_log(self.places)

    @asynccontextmanager
    async def copied(self) -> AsyncIterator[str]:
        """A slot at the beginning of the backlog, for as long as it is needed."""
        slot = f"{self.names.slot}_copy"
        await self._query("SELECT pg_copy_logical_replication_slot(%s, %s)", self.origin, slot)
        try:
            yield slot
        finally:
            await self._free(slot)

    async def remove(self) -> None:
        """Take everything of the app away again."""
        for slot in (self.names.slot, self.origin, f"{self.names.slot}_copy"):
            await self._free(slot)
        await self._forget()
        for table in ("projections", "capture"):
            await self._delete(table)
        for what, name in (
            ("PUBLICATION", sql.Identifier(self.names.publication)),
            ("TABLE", sql.Identifier("readside", self.names.branch)),
            ("TABLE", sql.Identifier(self.rows)),
        ):
            command = sql.SQL("DROP {} IF EXISTS {}").format(sql.SQL(what), name)
            await self.connection.execute(command)

    async def _forget(self) -> None:
        for table in _NOTES:
            await self._delete(table)
        store = store_for(self.places.read_store)
        try:
            await store.open(self.name)
            for (name,) in await self._query(
                "SELECT projection FROM readside.projections WHERE app = %s", self.name
            ):
                await store.reset(name, None)
        finally:
            await store.close()
        if self.places.broker:
            await _drop_stream(self.places.broker, f"readside_{self.name}")

    async def _delete(self, table: str) -> None:
        where = sql.Identifier("readside", table)
        await self.connection.execute(
            sql.SQL("DELETE FROM {} WHERE app = {}").format(where, sql.Literal(self.name))
        )

    async def _free(self, slot: str) -> None:
        """Drop a slot, as soon as its reader is gone."""
        while True:
            found = await self._query(
                "SELECT active_pid, pg_terminate_backend(active_pid)"
                " FROM pg_replication_slots WHERE slot_name = %s",
                slot,
            )
            if not found:
                return
            if found[0][0] is None:
                try:
                    await self._query("SELECT pg_drop_replication_slot(%s)", slot)
                except psycopg.errors.ObjectInUse:
                    continue
                return
            await asyncio.sleep(0.02)

    async def _query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(statement.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def _drop_stream(url: str, stream: str) -> None:
    import nats  # noqa: PLC0415 - an extra
    from nats.js.errors import NotFoundError  # noqa: PLC0415 - as above

    client = await nats.connect(url)
    try:
        await client.jetstream().delete_stream(stream)
    except NotFoundError:
        pass  # nothing was published
    finally:
        await client.close()


@asynccontextmanager
async def ground(places: Places, shape: Backlog) -> AsyncIterator[Ground]:
    """An app for the bench, installed; nothing of it is left at the end."""
    async with opened(places.write_store, "bench") as connection:
        made = Ground(places, shape, connection)
        await connection.execute("SELECT pg_advisory_lock(hashtext(%s))", [made.name])
        try:
            await made.install()
            yield made
        except BaseException:
            if not places.thrown_away:
                await made.remove()
            raise
        await made.remove()


@asynccontextmanager
async def tidy(places: Places) -> AsyncIterator[None]:
    """Leave the user's own servers as they were, also after a bench that was killed."""
    if places.thrown_away:
        yield
        return
    async with opened(places.write_store, "bench") as connection:
        found = await connection.execute("SELECT to_regclass('readside.capture') IS NOT NULL")
        installed = await found.fetchone() == (True,)
        if installed:
            await _remove_leftovers(places, connection)
    try:
        yield
    finally:
        if not installed:
            async with opened(places.write_store, "bench") as connection:
                await _remove_schema(connection)


async def _remove_leftovers(places: Places, connection: Connection) -> None:
    found = await connection.execute(
        "SELECT app FROM readside.capture WHERE app ~ '^bench_[0-9a-f]{10}$'"
        " AND pg_try_advisory_lock(hashtext(app))"  # a bench that runs holds its own
    )
    for (name,) in await found.fetchall():
        log.warning("removing what a bench has left that was killed: app %s", name)
        await Ground(places, Backlog(0, 0), connection, name).remove()


async def _remove_schema(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE readside.capture")
        found = await connection.execute("SELECT count(*) FROM readside.capture")
        if await found.fetchone() == (0,):  # nobody has installed an app meanwhile
            await connection.execute("DROP SCHEMA readside CASCADE")
