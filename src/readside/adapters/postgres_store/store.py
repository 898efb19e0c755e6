"""PostgreSQL as read store: rows in plain tables, one transaction a batch.

The tables are the user's to read and to join. What readside has to know beside them is in schema
readside_store: checkpoints, the positions of documents, which of them are parked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import psycopg
from psycopg import errors

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres_store import statements as sql
from readside.adapters.postgres_store.clearing import clearing
from readside.adapters.postgres_store.connections import Connections
from readside.adapters.postgres_store.preparation import check, prepare
from readside.adapters.postgres_store.sheet import Sheet
from readside.core.errors import (
    DecodeError,
    FencedError,
    SchemaError,
    UnavailableError,
    UnwritableError,
)
from readside.core.folding import Batch, Stored
from readside.core.projection import Projection
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Reading, StoreTraits
from readside.ports.traits import Promise

log = logging.getLogger("readside.postgres")

#: SQLSTATE of readside_store.insist.
_REFUSED = "RS001"
#: What is wrong with a value, not with the server: data, integrity, program limits, a view's check
#: option, and what a trigger of the user's raises.
_VALUES = ("22", "23", "54", "44", "P0")
#: Two transactions stood in each other's way; the guards tell what became of the documents.
_CLASHES = (errors.DeadlockDetected, errors.SerializationFailure)


class PostgresStore:
    """A database with a table for each projection.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        inline: whether it is for the inline projections, which are in the write store and are not
            applied to but only read and tended here.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(
        applies_atomically=Promise.KEPT, durable=Promise.KEPT
    )

    def __init__(self, url: str, *, inline: bool = False) -> None:
        self._inline = inline
        self._connections = Connections(url)
        self._app = ""
        self._projections: Mapping[str, Projection[Any]] = {}
        self._sheets: dict[str, Sheet] = {}

    def declare(self, projections: Mapping[str, Projection[Any]]) -> None:
        """See ports.store."""
        self._projections = projections

    async def prepare(self, app: str) -> list[str]:
        """See ports.store."""
        self._app = app
        names = [
            name
            for name, one in self._projections.items()
            if (one.mode == "inline") is self._inline
        ]
        async with self._connections.lend(patience=None) as connection:
            return await prepare(connection, app, [self._sheet(name) for name in names])

    async def open(self, app: str, projections: Sequence[str] = ()) -> None:
        """See ports.store."""
        if app != self._app:
            self._app, self._sheets = app, {}
        async with self._connections.lend() as connection:
            await _warn(connection)
            await check(connection, app, [self._sheet(name) for name in projections])

    def _sheet(self, name: str) -> Sheet:
        """Where a projection's documents are.

        Raises:
            SchemaError: the app does not declare it.
        """
        sheet = self._sheets.get(name)
        if sheet is None:
            if name not in self._projections:
                raise SchemaError(
                    f"App {self._app} declares no projection {name}, so its table is not known.",
                    mend="declare it as it was",
                )
            sheet = self._sheets[name] = Sheet(self._app, self._projections[name])
        return sheet

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """See ports.store."""
        if not partitions:
            return {}
        values = {**self._names(projection), "partitions": list(partitions)}
        rows = await self._query(sql.CHECKPOINTS, values)
        return {number: Checkpoint.decode(text) for number, text in rows}

    async def load(
        self, projection: str, keys: Sequence[str], *, documents: bool = True
    ) -> list[Stored]:
        """See ports.store; the documents come anyway, in the same statement."""
        del documents
        if not keys:
            return []
        sheet = self._sheet(projection)
        values = {**self._names(projection), "keys": list(keys), "own": sheet.own(keys)}
        return [
            Stored(None if document is None else document.encode(), positions or "")
            for document, positions in await self._query(sheet.load, values)
        ]

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store."""
        sheet = self._sheet(batch.projection)
        documents = {write.key: write.document for write in batch.writes}
        steps = [*sql.guards(self._app, batch), *sql.contents(sheet, documents)]
        async with (
            self._connections.lend() as connection,
            clearing(connection, self._connections.dsn),
        ):
            try:
                await _at_once(connection, [(b"BEGIN", {}), *steps, (b"COMMIT", {})])
            except psycopg.Error as error:
                outcome = _outcome(error)
                if outcome is not None:
                    return outcome
                if not (error.sqlstate or "").startswith(_VALUES):
                    raise
            else:
                return Outcome.APPLIED
        async with (
            self._connections.lend() as connection,
            clearing(connection, self._connections.dsn),
        ):
            return await self._apply_what_can_be(connection, sheet, batch)

    async def _apply_what_can_be(
        self, connection: Connection, sheet: Sheet, batch: Batch
    ) -> Outcome:
        """Find the documents which the table refuses, if it refuses them again."""
        documents = {write.key: write.document for write in batch.writes}
        try:
            await connection.execute(b"BEGIN")
            for statement, values in sql.guards(self._app, batch):
                await connection.execute(statement, values)
            refused = await _refused(connection, sheet, sorted(documents), documents)
            if not refused:
                await connection.execute(b"COMMIT")
                return Outcome.APPLIED
        except psycopg.Error as error:
            outcome = _outcome(error)
            if outcome is None:
                raise
            return outcome
        finally:
            await _roll_back(connection)
        raise UnwritableError(
            f"table {sheet.schema}.{sheet.relation}: {'; '.join(refused.values())}",
            mend="change the handler, the view, or the table's constraints; then:"
            " readside dead-letters retry",
            documents=refused,
        )

    async def read(
        self,
        projection: str,
        keys: Sequence[str],
        partitions: Sequence[int] = (),
        *,
        documents: bool = True,
    ) -> Reading:
        """See ports.store."""
        sheet = self._sheet(projection)
        values = {
            **self._names(projection),
            "keys": [*keys] if keys else [None],
            "own": sheet.own(keys) or [None],
            "partitions": list(partitions),
        }
        rows = await self._query(sheet.read if documents else sheet.look, values)
        _, halted, found, _, _ = rows[0]
        return Reading(
            [None if row[4] is None else row[4].encode() for row in rows if row[0]],
            halted or "",
            {int(number): Checkpoint.decode(text) for number, text in (found or {}).items()},
            frozenset(key for key, row in zip(keys, rows, strict=False) if row[3]),
        )

    async def holds(self, projection: str) -> bool:
        """Whether it has a table of this app's for a projection, declared or not."""
        try:
            found = await self._query(sql.HELD, {**self._names(projection), "inline": self._inline})
        except SchemaError:
            return False
        return bool(found)

    async def halt(self, projection: str, partition: int, reason: str) -> None:
        """See ports.store."""
        values = {**self._names(projection), "partition": partition, "reason": reason}
        await self._query(sql.HALT if reason else sql.GO_ON, values)

    async def parked(self, projection: str, partition: int) -> Mapping[str, str]:
        """See ports.store."""
        values = {**self._names(projection), "partition": partition}
        return dict(await self._query(sql.PARKED, values))

    async def unpark(self, projection: str, partition: int, key: str, parking: str) -> None:
        """See ports.store."""
        values = {**self._names(projection), "partition": partition, "key": key, "parking": parking}
        await self._query(sql.UNPARK, values)

    async def reset(self, projection: str, checkpoints: Mapping[int, Checkpoint] | None) -> int:
        """See ports.store; here it is one transaction, and the app need not declare the projection."""
        names = self._names(projection)
        async with (
            self._connections.lend(patience=None) as connection,
            connection.transaction(),
        ):
            row = await (await connection.execute(sql.SEIZE, names)).fetchone()
            if row is None:
                return 0
            identity = row[0]
            stopped = await connection.execute(sql.STOP, {"id": identity})
            _insist(await stopped.fetchall(), projection, checkpoints or {})
            removing = sql.empty(*row[1:])
            found = await (await connection.execute(removing, {"id": identity})).fetchone()
            for statement in sql.FORGET:
                await connection.execute(statement, {"id": identity})
            if checkpoints is None:
                await connection.execute(sql.LEAVE, {"id": identity})
            for number, checkpoint in (checkpoints or {}).items():
                values = {"id": identity, "partition": number, "checkpoint": checkpoint.encode()}
                await connection.execute(sql.BEGIN_AGAIN, values)
        return int(found[0]) if found else 0

    async def close(self) -> None:
        """See ports.store."""
        await self._connections.close()

    def _names(self, projection: str) -> dict[str, Any]:
        return {"app": self._app, "projection": projection}

    async def _query(self, statement: bytes, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            return await self._ask(statement, values)
        except UnavailableError as error:
            if not isinstance(error.__cause__, psycopg.OperationalError):
                raise
        # The connection had been ended meanwhile, by a restart or for its idleness, and the others
        # are given up with it. What is asked here may be asked twice.
        return await self._ask(statement, values)

    async def _ask(self, statement: bytes, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async with self._connections.lend() as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []


def _insist(
    found: Sequence[tuple[int, str]], projection: str, begins: Mapping[int, Checkpoint]
) -> None:
    for number, text in found:
        try:
            token = Checkpoint.decode(text).token
        except DecodeError:
            continue  # what nobody can read goes
        if number in begins and token >= begins[number].token:
            raise FencedError(f"Somebody newer works on {projection}.", mend="repeat the command")


def _outcome(error: psycopg.Error) -> Outcome | None:
    if error.sqlstate == _REFUSED:
        return Outcome[error.diag.message_primary or ""]
    return Outcome.CONFLICT if isinstance(error, _CLASHES) else None


async def _at_once(connection: Connection, steps: Iterable[sql.Step]) -> None:
    """Send everything in one round trip; what comes after an error is not done.

    Then psycopg may take statements for prepared that the server never saw, so the connection goes.
    """
    try:
        async with connection.pipeline():
            for statement, values in steps:
                await connection.execute(statement, values or None)
    except psycopg.Error:
        await connection.close()
        raise


async def _roll_back(connection: Connection) -> None:
    if connection.pgconn.transaction_status in (
        psycopg.pq.TransactionStatus.INTRANS,
        psycopg.pq.TransactionStatus.INERROR,
    ):
        await connection.execute(b"ROLLBACK")


async def _refused(
    connection: Connection,
    sheet: Sheet,
    keys: Sequence[str],
    documents: Mapping[str, bytes | None],
) -> dict[str, str]:
    """Write what can be written, and tell of the rest why not, by halves."""
    await connection.execute(b"SAVEPOINT part")
    try:
        for statement, values in sql.contents(sheet, {key: documents[key] for key in keys}):
            await connection.execute(statement, values)
        await connection.execute(b"SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith(_VALUES):
            raise
        await connection.execute(b"ROLLBACK TO part")
        if len(keys) == 1:
            return {keys[0]: error.diag.message_primary or str(error)}
        half = len(keys) // 2
        first = await _refused(connection, sheet, keys[:half], documents)
        return first | await _refused(connection, sheet, keys[half:], documents)
    await connection.execute(b"RELEASE part")
    return {}


async def _warn(connection: Connection) -> None:
    row = await (await connection.execute(b"SELECT current_setting('fsync')")).fetchone()
    if row and row[0] == "off":
        log.info(
            "the read store runs with fsync=off: it may go back in time when its machine crashes"
        )
