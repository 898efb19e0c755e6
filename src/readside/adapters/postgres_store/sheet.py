"""Sheets: one projection's table, and the statements that read and write documents there."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from readside.adapters.postgres_store.columns import (
    Column,
    Kind,
    columns_of,
    literal,
    quoted,
)
from readside.core.errors import DeclarationError
from readside.core.projection import Projection
from readside.core.table import Table

_BIGGEST = 2**63
#: The column of a view which has no fields, a dict for instance.
_DOCUMENT = Column("document", "document", Kind("jsonb"), nullable=False, default=None)
_DEFAULT_KEY = "key"

#: Which projection a statement is about.
ID = "(SELECT id FROM readside_store.projections WHERE app = %(app)s AND projection = %(projection)s)"


def _integer(key: str) -> bool:
    return (
        key.removeprefix("-").isdecimal()
        and len(key) <= 20  # noqa: PLR2004 - digits of the biggest, and a sign
        and str(int(key)) == key
        and -_BIGGEST <= int(key) < _BIGGEST
    )


def _uuid(key: str) -> bool:
    try:
        return str(uuid.UUID(key)) == key
    except ValueError:
        return False


def _date(key: str) -> bool:
    try:
        return dt.date.fromisoformat(key).isoformat() == key
    except ValueError:
        return False


#: Types of a key's column, and which texts are a value's own text there: no other has a row.
_KEY_TYPES: dict[str, Callable[[str], bool]] = {
    "text": bool,
    "bigint": _integer,
    "uuid": _uuid,
    "date": _date,
}


def key_text(value: str, kind: str) -> str:
    """The expression for the key's text, whatever the session's settings are."""
    return f"to_char({value}, 'YYYY-MM-DD')" if kind == "date" else f"({value})::text"


class Sheet:
    """Where one projection's documents are, and how they are written there and read.

    Raises:
        DeclarationError: the view or the declaration of its table cannot be a table.
    """

    def __init__(self, app: str, projection: Projection[Any]) -> None:
        self.projection = projection.name
        self.table: Table = projection.table or Table()
        self.inline = projection.mode == "inline"
        schema, _, relation = (self.table.name or f"{app}.{projection.name}").rpartition(".")
        self.schema, self.relation = schema or "public", relation
        self.name = f"{quoted(self.schema)}.{quoted(self.relation)}"
        found = columns_of(projection.codec.view)
        self.columns, self._tag = found or ([_DOCUMENT], None)
        self._whole = found is None
        self.key = self._key()
        self._own = _KEY_TYPES[self.key.kind.type]
        self._texts()

    def _key(self) -> Column:
        """The key's column: one of the view's, or one before them."""
        wanted = self.table.key or _DEFAULT_KEY
        field = next((column for column in self.columns if column.name == wanted), None)
        if field is None:
            return Column(wanted, "", Kind("text", ("character varying",)), False, None)
        where = f"Field {wanted!r} of projection {self.projection!r}"
        if not self.table.key:
            raise DeclarationError(
                f"{where} has the name of the column for the documents' keys.",
                mend='say what it is: table=Table(key="key") if it holds them, or'
                ' Table(key="document_key") to keep them elsewhere',
            )
        if field.nullable or field.kind.type not in _KEY_TYPES:
            raise DeclarationError(
                f"{where} cannot be a key of type {field.kind.type}.",
                mend="use an int, a str, a UUID or a date which is never None",
            )
        return field

    @property
    def all_columns(self) -> list[Column]:
        """The columns of the table, the key's first where it is none of the view's."""
        return self.columns if self.key in self.columns else [self.key, *self.columns]

    def own(self, keys: Sequence[str]) -> list[str | None]:
        """The keys as values of the key's column; None where no document can be."""
        own = self._own
        return [key if own(key) else None for key in keys]

    def _texts(self) -> None:
        key, kind = quoted(self.key.name), self.key.kind.type
        shown = [
            f"{c.kind.show.format(f't.{quoted(c.name)}')} AS {quoted(c.field)}"
            for c in self.columns
        ]
        if self._tag:
            shown.append(f"{literal(self._tag[1])}::json AS {quoted(self._tag[0])}")
        show = f"(SELECT row_to_json(x.*) FROM (SELECT {', '.join(shown)}) AS x)"
        if self._whole:
            show = f"t.{quoted('document')}"
        # Looked up key by key: a join might be planned, from statistics of a table that was empty
        # a moment ago, as a search through all of it.
        document = f"(SELECT {show}::text FROM {self.name} AS t WHERE t.{key} = w.own)"
        positions = (
            "(SELECT d.positions FROM readside_store.documents AS d"
            f" WHERE d.projection = {ID} AND d.key = w.key)"
        )
        wanted = (
            f"unnest(%(keys)s::text[], %(own)s::text[]::{kind}[]) WITH ORDINALITY AS w(key, own, n)"
        )
        #: Documents and positions of `keys`, in their order.
        self.load = f"SELECT {document}, {positions} FROM {wanted} ORDER BY w.n".encode()
        self.read = _read(document, wanted).encode()
        #: The same without the documents.
        self.look = _read("NULL", wanted).encode()
        self.delete = (
            f"DELETE FROM {self.name} WHERE {key} = ANY (%(gone)s::text[]::{kind}[])".encode()
        )
        self.put = self._put().encode()

    def _put(self) -> str:
        """The statement that writes documents, given as one array of JSON, in the order of their keys."""
        names = [f"c{number}" for number in range(len(self.columns))]
        fields = ", ".join(f"{quoted(c.field)} {c.read_as}" for c in self.columns)
        values = {
            column.name: _value(column, f"r.{name}")
            for column, name in zip(self.columns, names, strict=True)
        }
        kept = ""
        if self.key in self.columns:
            text = key_text(values[self.key.name], self.key.kind.type)
            kept = f" WHERE readside_store.own_key(r.k, {text}) IS NOT NULL"
        else:
            values = {self.key.name: "r.k", **values}
        into = ", ".join(map(quoted, values))
        key = quoted(self.key.name)
        rest = [quoted(name) for name in values if name != self.key.name]
        renewed = ", ".join(f"{name} = excluded.{name}" for name in rest)
        act = f"UPDATE SET {renewed}" if rest else "NOTHING"
        return (
            f"INSERT INTO {self.name} ({into}) SELECT {', '.join(values.values())}"
            f" FROM ROWS FROM (json_to_recordset(%(documents)s::json) AS ({fields}),"
            f" unnest(%(present)s::text[])) AS r({', '.join([*names, 'k'])}){kept}"
            f" ON CONFLICT ({key}) DO {act}"
        )

    def documents(self, found: Sequence[bytes]) -> str:
        """Several documents as the parameter of `put`."""
        if self._whole:
            return '[{"document":' + b'},{"document":'.join(found).decode() + "}]"
        return "[" + b",".join(found).decode() + "]"


def _read(show: str, source: str) -> str:
    """All that a reader has to know, of one moment; the first row has what concerns no document."""
    asked = "%(partitions)s::int[]"
    return (
        "SELECT w.key IS NOT NULL, CASE WHEN w.n = 1 THEN"
        f" (SELECT reason FROM readside_store.halted WHERE projection = {ID} LIMIT 1) END,"
        f" CASE WHEN w.n = 1 AND {asked} <> '{{}}' THEN"
        "  (SELECT json_object_agg(partition, checkpoint) FROM readside_store.checkpoints"
        f"  WHERE projection = {ID} AND partition = ANY ({asked})) END,"
        f" {asked} <> '{{}}' AND EXISTS (SELECT FROM readside_store.parked AS p"
        f"  WHERE p.projection = {ID} AND p.partition = ANY ({asked}) AND p.key = w.key),"
        f" {show} FROM {source} ORDER BY w.n"
    )


def _value(column: Column, read: str) -> str:
    value = column.kind.write.format(read)
    if column.omitted and column.default is not None:
        return f"coalesce({value}, {literal(column.default)}::{column.kind.type})"
    return value
