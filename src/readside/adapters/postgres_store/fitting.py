"""Sees whether a table can hold a view's documents."""

from __future__ import annotations

from typing import NamedTuple

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres_store.columns import Column
from readside.adapters.postgres_store.sheet import Sheet
from readside.core.errors import RefusedError

_VARYING = "character varying"


class Found(NamedTuple):
    """A column as it is."""

    type: str
    not_null: bool
    #: Whether it gets a value where none is given.
    filled: bool
    #: Whether nobody may give it one.
    generated: bool
    #: Whether equal values are the same text.
    deterministic: bool
    #: Whether at most one row has each value, enforced at once.
    unique: bool


async def relation_kind(connection: Connection, schema: str, relation: str) -> str:
    """What has this name, as pg_class has it; empty for nothing."""
    row = await (
        await connection.execute(
            "SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = %s",
            [schema, relation],
        )
    ).fetchone()
    return row[0] if row else ""


async def look(connection: Connection, sheet: Sheet) -> dict[str, Found]:
    """The columns of the table, by name."""
    rows = await (
        await connection.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,"
            " a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a',"
            " coalesce(l.collisdeterministic, true),"
            " EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique"
            "  AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL"
            "  AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " LEFT JOIN pg_collation l ON l.oid = a.attcollation"
            " WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped",
            [sheet.schema, sheet.relation],
        )
    ).fetchall()
    return {row[0]: Found(*row[1:]) for row in rows}


async def check_fit(connection: Connection, sheet: Sheet) -> None:
    """Make sure that every document of the view has a row there, and every row is a document.

    Raises:
        RefusedError: with all that does not fit.
    """
    kind = await relation_kind(connection, sheet.schema, sheet.relation)
    wrong: list[str] = []
    if kind not in ("r", "p"):
        wrong.append("it is no table")
    else:
        found = await look(connection, sheet)
        wanted = {column.name: column for column in sheet.all_columns}
        for column in wanted.values():
            wrong += _unfit(column, found.get(column.name))
        key = found.get(sheet.key.name)
        if key is not None and not key.unique:
            wrong.append(f"column {sheet.key.name} has no unique index of its own")
        if key is not None and not key.deterministic:
            wrong.append(f"column {sheet.key.name} takes different keys for the same")
        wrong += [
            f"column {name} must not be NULL, has no default, and is no field of the view"
            for name, one in found.items()
            if name not in wanted and one.not_null and not one.filled and not one.generated
        ]
    if wrong:
        raise RefusedError(
            f"Table {sheet.schema}.{sheet.relation} does not fit the view of projection"
            f" {sheet.projection}: {'; '.join(wrong)}.",
            mend="ALTER TABLE, or change the view; or give the projection another table",
        )


def _unfit(column: Column, found: Found | None) -> list[str]:
    if found is None:
        return [f"column {column.name} {column.kind.type} is missing"]
    accepted = (column.kind.type, *column.kind.accepts)
    plain = _VARYING if found.type.startswith(_VARYING) else found.type
    if plain not in accepted:
        return [f"column {column.name} is {found.type}, not {column.kind.type}"]
    if found.generated:
        return [f"column {column.name} makes its own values"]
    if found.not_null and column.nullable:
        return [f"column {column.name} must not be NULL, and the view's field may be None"]
    return []
