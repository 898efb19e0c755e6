"""Inline projections: folded in the command's own transaction, into tables of the write store.

What to do is a generator which yields statements and is given their rows, so that it is the same for
every kind of connection.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

from readside.adapters.postgres_store.sheet import Sheet
from readside.adapters.postgres_store.statements import LOCK, Step, contents
from readside.core.errors import DeclarationError, SchemaError
from readside.core.folding import Folder, Stored
from readside.core.projection import Projection
from readside.core.record import Record, written

#: A row of the outbox, as it is recorded.
Row = tuple[Any, ...]
Rows = Sequence[tuple[Any, ...]]
Work = Generator[Step, Rows, None]

#: SQLSTATE of readside_store.insist.
_MISSING = "RS001"


class InlineViews:
    """The inline projections of an app.

    Args:
        app: its name.
        projections: all of its projections; the mapping may grow.
    """

    def __init__(self, app: str, projections: Mapping[str, Projection[Any]]) -> None:
        self._app = app
        self._projections = projections
        self._sheets: dict[str, Sheet] = {}

    def _concerned(self, rows: Iterable[Row]) -> list[Projection[Any]]:
        """The inline projections which handle one of these events, by name."""
        types = {row[4] for row in rows}
        found = [
            projection
            for projection in self._projections.values()
            if projection.mode == "inline" and not types.isdisjoint(projection.routes)
        ]
        return sorted(found, key=lambda projection: projection.name)

    def fold(self, rows: Sequence[Row]) -> Work:
        """Fold recorded events into their documents, projection by projection.

        Every document concerned is locked first, in one order for everybody: so two transactions
        which concern the same documents follow each other, and never wait in a circle. A document
        which is not there yet is locked by the row that remembers it.

        Raises:
            HandlerError, DecodeError: a handler fails; the transaction has to be rolled back.
        """
        concerned = self._concerned(rows)
        if not concerned:
            return
        records = [written(number, row) for number, row in enumerate(rows, 1)]
        for projection in concerned:
            yield from self._fold(projection, records)

    def _fold(self, projection: Projection[Any], records: Sequence[Record]) -> Work:
        folder = Folder(projection)
        steps = folder.route(records)
        _raise_first(step.error for step in steps)
        sheet = self._sheet(projection)
        keys = sorted({step.key for step in steps})
        if not keys:
            return
        names = {"app": self._app, "projection": projection.name, "keys": keys}
        yield LOCK, {**names, "schema": sheet.schema, "relation": sheet.relation}
        found = yield sheet.load, {**names, "own": sheet.own(keys)}
        loaded = {
            key: Stored(None if row[0] is None else row[0].encode(), "")
            for key, row in zip(keys, found, strict=True)
        }
        folded = folder.fold(steps, loaded)
        _raise_first(poison.error for poison in folded.poisons)
        yield from contents(sheet, {write.key: write.document for write in folded.writes})

    def _sheet(self, projection: Projection[Any]) -> Sheet:
        sheet = self._sheets.get(projection.name)
        if sheet is None:
            sheet = self._sheets[projection.name] = Sheet(self._app, projection)
        return sheet

    def run(self, connection: psycopg.Connection[Any], rows: Sequence[Row]) -> None:
        """Do it on a connection.

        Raises:
            HandlerError: a handler fails.
            DeclarationError: no transaction is open, and none would be.
            SchemaError: `readside init` has not seen the projection.
        """
        self.check(connection, rows)
        work = self.fold(rows)
        with connection.cursor(row_factory=tuple_row) as cursor:
            try:
                step = next(work)
                while True:
                    cursor.execute(*step)
                    step = work.send(cursor.fetchall() if cursor.description else [])
            except StopIteration:
                return
            except psycopg.Error as error:
                _raise_plain(error)
                raise

    async def run_async(
        self, connection: psycopg.AsyncConnection[Any], rows: Sequence[Row]
    ) -> None:
        """Do it on an asynchronous connection; see `run`."""
        self.check(connection, rows)
        work = self.fold(rows)
        async with connection.cursor(row_factory=tuple_row) as cursor:
            try:
                step = next(work)
                while True:
                    await cursor.execute(*step)
                    step = work.send(await cursor.fetchall() if cursor.description else [])
            except StopIteration:
                return
            except psycopg.Error as error:
                _raise_plain(error)
                raise

    def check(self, connection: Any, rows: Sequence[Row]) -> bool:
        """Whether any of these rows concerns an inline projection; asked before anything is written.

        Raises:
            DeclarationError: no transaction is open, and none would be; or a pipeline is.
        """
        concerned = self._concerned(rows)
        if concerned and connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            raise DeclarationError(
                f"Projection {concerned[0].name} is inline, and in a pipeline its view cannot be read.",
                mend="record before the pipeline or after it",
            )
        idle = connection.info.transaction_status == pq.TransactionStatus.IDLE
        if connection.autocommit and idle and concerned:
            raise DeclarationError(
                f"Projection {concerned[0].name} is inline, and this connection commits every"
                " statement on its own.",
                mend="open a transaction: with connection.transaction()",
            )
        return bool(concerned)


def _raise_first(errors: Iterable[Exception | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def _raise_plain(error: psycopg.Error) -> None:
    """Say it plainly where PostgreSQL's error only means that something was not installed."""
    missing = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
    if error.sqlstate == _MISSING or isinstance(error, missing):
        raise SchemaError(
            f"PostgreSQL: {error.diag.message_primary}", mend="run: readside init module:app"
        ) from error
