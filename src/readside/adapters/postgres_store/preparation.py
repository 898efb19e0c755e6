"""Makes and changes the tables of the views, or sees that they fit; safe to repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from psycopg import errors

from readside.adapters.postgres.connection import Connection
from readside.adapters.postgres.migrations import migrate
from readside.adapters.postgres_store.columns import Column, literal, quoted
from readside.adapters.postgres_store.fitting import check_fit, look, relation_kind
from readside.adapters.postgres_store.moving import refuse_leftovers, refuse_moved
from readside.adapters.postgres_store.sheet import Sheet
from readside.core.errors import RefusedError, SchemaError

_LOCK = 0x7265616473696466  # beside the one of adapters.postgres.installation
_TABLES = ("documents", "checkpoints", "parked", "halted")


async def prepare(connection: Connection, app: str, sheets: Sequence[Sheet]) -> list[str]:
    """Bring readside's own tables and those of the views to what this version needs.

    All of it in one transaction; two that run at once wait for each other.

    Returns:
        what was done.

    Raises:
        RefusedError: a table is another's, or cannot hold the view.
    """
    done: list[str] = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        applied = await migrate(connection, "readside.adapters.postgres_store", "readside_store")
        done += [f"read store: migration {name}" for name in applied]
        for sheet in sheets:
            await _adopt(connection, app, sheet, done)
    return done


async def check(connection: Connection, app: str, sheets: Sequence[Sheet]) -> None:
    """Make sure that the tables are there, are this app's and fit, without changing anything.

    Raises:
        SchemaError: `readside init` has not seen this version of the code.
        RefusedError: a table is another's, or does not fit.
    """
    for sheet in sheets:
        rows = await (
            await connection.execute(
                "SELECT app, projection, schema = %(schema)s AND relation = %(relation)s, inline"
                " FROM readside_store.projections WHERE (schema = %(schema)s AND relation = %(relation)s)"
                " OR (app = %(app)s AND projection = %(projection)s)",
                _names(app, sheet),
            )
        ).fetchall()
        for owner, projection, same, _ in rows:
            if same:
                _refuse_strangers(app, sheet, owner, projection)
        ours = [row for row in rows if row[0] == app and row[2]]
        if not ours or not await relation_kind(connection, sheet.schema, sheet.relation):
            raise SchemaError(
                f"Projection {sheet.projection} has no table {_plain(sheet)} yet.",
                mend="run: readside init module:app",
            )
        _refuse_other_mode(sheet, inline=ours[0][3])
        await check_fit(connection, sheet)


def _names(app: str, sheet: Sheet) -> dict[str, object]:
    return {
        "app": app,
        "projection": sheet.projection,
        "schema": sheet.schema,
        "relation": sheet.relation,
    }


def _plain(sheet: Sheet) -> str:
    return f"{sheet.schema}.{sheet.relation}"


def _refuse_strangers(app: str, sheet: Sheet, owner: str | None, projection: str) -> None:
    if owner is not None and (owner, projection) != (app, sheet.projection):
        raise RefusedError(
            f"Table {_plain(sheet)} of projection {sheet.projection} belongs to projection"
            f" {projection} of app {owner}.",
            mend=f"give it another: table=Table(name=…); or: readside forget {owner}'s {projection}",
        )


def _refuse_other_mode(sheet: Sheet, *, inline: bool) -> None:
    if inline != sheet.inline:
        was = "inline" if inline else "asynchronous"
        raise RefusedError(
            f"Projection {sheet.projection} was {was}; what its documents contain would not be known.",
            mend=f"give it another name, or first: readside forget module:app {sheet.projection} --documents",
        )


async def _adopt(connection: Connection, app: str, sheet: Sheet, done: list[str]) -> None:
    names = _names(app, sheet)
    registered = await (
        await connection.execute(
            "SELECT app, projection, made, inline, key_column, key_type"
            " FROM readside_store.projections WHERE schema = %(schema)s AND relation = %(relation)s",
            names,
        )
    ).fetchone()
    if sheet.inline:
        await _refuse_followed(connection, app, sheet)
    await refuse_moved(connection, app, sheet)
    there = await relation_kind(connection, sheet.schema, sheet.relation)
    made = False
    if registered is not None:
        owner, projection, made, inline, _, _ = registered
        _refuse_strangers(app, sheet, owner, projection)
        if owner is not None:
            _refuse_other_mode(sheet, inline=inline)
        elif there:
            await refuse_leftovers(connection, sheet, projection, made=made)
    if there and not made and not sheet.table.existing:
        raise RefusedError(
            f"Table {_plain(sheet)} of projection {sheet.projection} exists, and is none of readside's.",
            mend="give the projection another: table=Table(name=…); or let readside write"
            " into this one: Table(…, existing=True)",
        )
    mine = (app, sheet.projection, not there or made, sheet.inline)
    if registered != (*mine, sheet.key.name, sheet.key.kind.type):
        # Not otherwise: it waits for every command which is folding inline.
        await _register(connection, names, sheet, made=not there or made)
    if not there:
        await _make(connection, sheet, names, done)
    elif made and not sheet.table.existing:
        await _change(connection, sheet, done)
    await check_fit(connection, sheet)
    if not sheet.table.existing:
        await _tend(connection, sheet, done)


async def _refuse_followed(connection: Connection, app: str, sheet: Sheet) -> None:
    """A projection that was folded after the commit is not complete, and PostgreSQL keeps WAL for it."""
    found = await connection.execute(
        "SELECT FROM readside.projections WHERE app = %s AND projection = %s",
        [app, sheet.projection],
    )
    if found.rowcount:
        _refuse_other_mode(sheet, inline=False)


async def _register(
    connection: Connection, names: dict[str, object], sheet: Sheet, *, made: bool
) -> None:
    await connection.execute(
        "UPDATE readside_store.projections SET app = NULL"
        " WHERE app = %(app)s AND projection = %(projection)s"
        " AND NOT (schema = %(schema)s AND relation = %(relation)s)",
        names,
    )
    await connection.execute(
        "INSERT INTO readside_store.projections (projection, app, schema, relation,"
        " key_column, key_type, made, inline) VALUES (%(projection)s, %(app)s, %(schema)s, %(relation)s,"
        " %(column)s, %(kind)s, %(made)s, %(inline)s)"
        " ON CONFLICT (schema, relation) DO UPDATE SET projection = excluded.projection,"
        " app = excluded.app, key_column = excluded.key_column,"
        " key_type = excluded.key_type, made = excluded.made, inline = excluded.inline",
        {
            **names,
            "column": sheet.key.name,
            "kind": sheet.key.kind.type,
            "made": made,
            "inline": sheet.inline,
        },
    )


def _definition(column: Column, *, key: bool = False) -> str:
    parts = [quoted(column.name), column.kind.type]
    if key and column.kind.type == "text":
        parts.append('COLLATE "C"')
    if column.default is not None:
        parts.append(f"DEFAULT {literal(column.default)}::{column.kind.type}")
    if not column.nullable:
        parts.append("NOT NULL")
    return " ".join(parts)


async def _execute(connection: Connection, statement: str) -> None:
    # Names and literals are quoted for statements with parameters, where a percent sign is doubled.
    await connection.execute(statement.encode(), {})


async def _make(
    connection: Connection, sheet: Sheet, names: dict[str, object], done: list[str]
) -> None:
    if sheet.table.existing:
        raise RefusedError(
            f"There is no table {_plain(sheet)} for projection {sheet.projection}.",
            mend="create it, or leave existing=True out and let readside do it",
        )
    found = await connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [sheet.schema])
    if not found.rowcount:
        await _execute(connection, f"CREATE SCHEMA {quoted(sheet.schema)}")
        done.append(f"read store: schema {sheet.schema}")
    columns = [_definition(column, key=column is sheet.key) for column in sheet.all_columns]
    columns.append(f"PRIMARY KEY ({quoted(sheet.key.name)})")
    await _execute(connection, f"CREATE TABLE {sheet.name} ({', '.join(columns)})")
    # Where there was one before: what readside knew of its documents is not true of this one.
    for table in _TABLES:
        await connection.execute(
            f"DELETE FROM readside_store.{table} WHERE projection = (SELECT id FROM"
            " readside_store.projections WHERE schema = %(schema)s AND relation = %(relation)s)".encode(),
            names,
        )
    done.append(f"read store: table {_plain(sheet)}")


async def _change(connection: Connection, sheet: Sheet, done: list[str]) -> None:
    """Add the columns of new fields, and let go of those that have none any more."""
    found = await look(connection, sheet)
    wanted = {column.name: column for column in sheet.all_columns}
    for column in wanted.values():
        if column.name not in found:
            await _add(connection, sheet, column, done)
    for name, one in found.items():
        column_of = wanted.get(name)
        if one.not_null and (column_of is None or column_of.nullable):
            await _execute(
                connection,
                f"ALTER TABLE {sheet.name} ALTER COLUMN {quoted(name)} DROP NOT NULL",
            )
            done.append(f"read store: column {name} of {_plain(sheet)} may be NULL")


async def _add(connection: Connection, sheet: Sheet, column: Column, done: list[str]) -> None:
    try:
        await _execute(connection, f"ALTER TABLE {sheet.name} ADD COLUMN {_definition(column)}")
    except errors.NotNullViolation as error:
        raise RefusedError(
            f"Table {_plain(sheet)} has rows, which have no value for the new field {column.name}.",
            mend="give the field a default, or let it be None",
        ) from error
    done.append(f"read store: column {column.name} of {_plain(sheet)}")


def _label(sheet: Sheet, text: str) -> str:
    digest = hashlib.sha256(f"{sheet.relation} {text}".encode()).hexdigest()[:12]
    return f"readside_{digest}"


async def _tend(connection: Connection, sheet: Sheet, done: list[str]) -> None:
    """Make the declared indexes and constraints, and drop those that were declared once."""
    indexes = {_label(sheet, text): text for text in sheet.table.indexes}
    constraints = {_label(sheet, text): text for text in sheet.table.constraints}
    try:
        await _tend_both(connection, sheet, indexes, constraints, done)
    except (errors.SyntaxError, errors.UndefinedColumn, errors.UndefinedFunction) as error:
        raise RefusedError(
            f"An index or constraint of projection {sheet.projection} cannot be made:"
            f" {error.diag.message_primary}.",
            mend="correct indexes= or constraints= of its Table",
        ) from error
    except errors.IntegrityError as error:
        raise RefusedError(
            f"The rows of {_plain(sheet)} break what is declared for it: {error.diag.message_primary}.",
            mend="correct constraints= of its Table",
        ) from error


async def _tend_both(
    connection: Connection,
    sheet: Sheet,
    indexes: dict[str, str],
    constraints: dict[str, str],
    done: list[str],
) -> None:
    had = await _labels(
        connection,
        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND starts_with(conname, 'readside_')",
        sheet,
    )
    for name in sorted(had - constraints.keys()):
        await _execute(connection, f"ALTER TABLE {sheet.name} DROP CONSTRAINT {quoted(name)}")
        done.append(f"read store: a constraint of {_plain(sheet)} less")
    for name in _missing(constraints, had):
        text = constraints[name].replace("%", "%%")
        await _execute(connection, f"ALTER TABLE {sheet.name} ADD CONSTRAINT {quoted(name)} {text}")
        done.append(f"read store: constraint {constraints[name]} of {_plain(sheet)}")
    had = await _labels(
        connection,
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = %s::regclass AND starts_with(c.relname, 'readside_')"
        " AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)",
        sheet,
    )
    for name in sorted(had - indexes.keys()):
        await _execute(connection, f"DROP INDEX {quoted(sheet.schema)}.{quoted(name)}")
        done.append(f"read store: an index of {_plain(sheet)} less")
    for name in _missing(indexes, had):
        text = indexes[name].replace("%", "%%")
        await _execute(connection, f"CREATE INDEX {quoted(name)} ON {sheet.name} ({text})")
        done.append(f"read store: index ({indexes[name]}) of {_plain(sheet)}")


def _missing(wanted: dict[str, str], had: set[str]) -> Iterable[str]:
    return [name for name in wanted if name not in had]


async def _labels(connection: Connection, query: str, sheet: Sheet) -> set[str]:
    name = sheet.name.replace("%%", "%")
    return {row[0] for row in await (await connection.execute(query.encode(), [name])).fetchall()}
