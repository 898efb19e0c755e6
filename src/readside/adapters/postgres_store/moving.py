"""Refuses what would lose documents, or take another's for its own, when a projection gets another table."""

from __future__ import annotations

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres_store.columns import literal, quoted
from readside.adapters.postgres_store.fitting import relation_kind
from readside.adapters.postgres_store.sheet import Sheet
from readside.core.errors import RefusedError


async def refuse_moved(connection: Connection, app: str, sheet: Sheet) -> None:
    """Nothing fills another table of an inline projection, and older processes go on in the first.

    Raises:
        RefusedError: the projection is inline, and in another table.
    """
    row = await (
        await connection.execute(
            "SELECT schema, relation FROM readside_store.projections"
            " WHERE app = %s AND projection = %s AND inline AND NOT (schema = %s AND relation = %s)",
            [app, sheet.projection, sheet.schema, sheet.relation],
        )
    ).fetchone()
    if row is None:
        return
    schema, relation = row
    if not await relation_kind(connection, schema, relation):
        return  # dropped: there is nothing left to lose, and nowhere to go on
    forget = f"readside forget module:app {sheet.projection} --documents"
    raise RefusedError(
        f"Projection {sheet.projection} is inline in table {schema}.{relation}: nothing would bring its"
        f" documents into {sheet.schema}.{sheet.relation}.",
        mend=f"in one transaction: {_moving(schema, relation, sheet)} or first: {forget}"
        if sheet.inline
        else f"give it another name, or first: {forget}",
    )


def _moving(schema: str, relation: str, sheet: Sheet) -> str:
    """The statements which take a table to where the sheet says, with its documents."""
    parts = []
    if schema != sheet.schema:
        parts.append(
            f"ALTER TABLE {quoted(schema)}.{quoted(relation)} SET SCHEMA {quoted(sheet.schema)};"
        )
    if relation != sheet.relation:
        parts.append(
            f"ALTER TABLE {quoted(sheet.schema)}.{quoted(relation)} RENAME TO {quoted(sheet.relation)};"
        )
    parts.append(
        f"UPDATE readside_store.projections SET schema = {literal(sheet.schema)},"
        f" relation = {literal(sheet.relation)}"
        f" WHERE schema = {literal(schema)} AND relation = {literal(relation)};"
    )
    return " ".join(parts).replace("%%", "%")


async def refuse_leftovers(
    connection: Connection, sheet: Sheet, before: str, *, made: bool
) -> None:
    """What a projection has left behind with its table would be taken for the next one's own.

    Args:
        connection: to the store.
        sheet: of the projection which shall have a table that belongs to none.
        before: the projection whose it was.
        made: whether readside has made it.

    Raises:
        RefusedError: its documents are there, or how far it was.
    """
    row = await (
        await connection.execute(
            "SELECT EXISTS (SELECT FROM readside_store.documents WHERE projection = id)"
            " OR EXISTS (SELECT FROM readside_store.checkpoints WHERE projection = id)"
            " FROM readside_store.projections WHERE schema = %s AND relation = %s",
            [sheet.schema, sheet.relation],
        )
    ).fetchone()
    if not row or not row[0]:
        return
    away = (
        f"DROP TABLE {sheet.name}"
        if made and not sheet.table.existing
        else "empty the table, and DELETE FROM readside_store.projections WHERE schema ="
        f" {literal(sheet.schema)} AND relation = {literal(sheet.relation)}"
    )
    raise RefusedError(
        f"Table {sheet.schema}.{sheet.relation} of projection {sheet.projection} has documents which"
        f" projection {before} left there when it got another table.",
        mend=f"give it another: table=Table(name=…); or, if nobody needs them: {away}".replace(
            "%%", "%"
        ),
    )
