"""Columns: the type of a field, and how its JSON becomes a value there and comes back."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from readside.core.errors import DeclarationError

#: Bytes of a name in PostgreSQL.
_LONGEST = 63


class Kind(NamedTuple):
    """A type of column. In the expressions, ``{}`` is the value."""

    type: str
    #: Types of an existing table's columns which hold the same values.
    accepts: tuple[str, ...] = ()
    #: As what the value comes out of the JSON, where not as `type`, and what it then needs.
    read_as: str = ""
    write: str = "{}"
    #: What makes the value that goes into the JSON again.
    show: str = "{}"


_BIGINT = Kind("bigint", ("integer", "smallint", "numeric"))
_TEXT = Kind("text", ("character varying",))
_JSONB = Kind("jsonb")
# A moment without a zone would silently be taken for one of the session's.
_MOMENT = Kind(
    "timestamp with time zone",
    read_as="text",
    write="({0} || CASE WHEN {0} ~ '(Z|[+-][0-9][0-9]:?[0-9][0-9])$' THEN ''"
    " ELSE ' has no time zone' END)::timestamptz",
)
_BYTES = Kind(
    "bytea",
    read_as="text",
    write="decode({}, 'base64')",
    show="translate(encode({}, 'base64'), E'\\n', '')",
)
# PostgreSQL reads the sign of ISO 8601's duration nowhere but inside, msgspec writes it in front.
_DURATION = Kind(
    "interval",
    read_as="text",
    write="CASE WHEN left({0}, 1) = '-' THEN -(substr({0}, 2)::interval) ELSE {0}::interval END",
    show="CASE WHEN {0} < interval '0' THEN '-' ELSE '' END"
    " || 'PT' || abs(extract(epoch FROM {0})) || 'S'",
)

_KINDS: dict[type, Kind] = {
    inspect.IntType: _BIGINT,
    inspect.StrType: _TEXT,
    inspect.BoolType: Kind("boolean"),
    inspect.FloatType: Kind("double precision"),
    inspect.DecimalType: Kind("numeric"),
    inspect.UUIDType: Kind("uuid"),
    inspect.DateType: Kind("date"),
    inspect.BytesType: _BYTES,
    inspect.TimeDeltaType: _DURATION,
}


class Column(NamedTuple):
    """One field of a view as a column."""

    name: str
    #: The field's name in JSON.
    field: str
    kind: Kind
    nullable: bool
    #: The default as text, to be cast to the type; None where there is none but NULL.
    default: str | None
    #: Whether the JSON leaves the field out where it has its default.
    omitted: bool = False

    @property
    def read_as(self) -> str:
        """The type as which the value comes out of the JSON."""
        return self.kind.read_as or self.kind.type


def quoted(name: str) -> str:
    """A name for a statement that has parameters, whatever is in it."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def literal(text: str) -> str:
    """A text for a statement that has parameters; does not depend on the session's settings."""
    plain = text.replace("'", "''").replace("%", "%%")
    return f" E'{plain.replace(chr(92), chr(92) * 2)}'" if "\\" in plain else f"'{plain}'"


def columns_of(view: type) -> tuple[list[Column], tuple[str, str] | None] | None:
    """The columns of a view, and the name and value of its tag; None for a view without fields.

    Raises:
        DeclarationError: a field cannot be a column.
    """
    info = inspect.type_info(view)
    tag = None
    if isinstance(info, inspect.StructType):
        if info.array_like or not info.fields:
            return None
        if info.tag_field is not None:
            tag = info.tag_field, msgspec.json.encode(info.tag).decode()
    elif not isinstance(info, inspect.DataclassType) or not info.fields:
        return None
    config = getattr(view, "__struct_config__", None)
    omits = bool(config and config.omit_defaults)
    columns = [_column(view, field, omits=omits) for field in info.fields]
    _distinct(view, columns)
    return columns, tag


def _column(view: type, field: inspect.Field, *, omits: bool) -> Column:
    where = f"Field {field.name!r} of {view.__name__}"
    for name in (field.name, field.encode_name):
        if len(name.encode()) > _LONGEST or "\0" in name:
            raise DeclarationError(
                f"{where} cannot be a column: PostgreSQL's names have at most {_LONGEST} bytes.",
                mend="give the field a shorter name",
            )
    types = _types(field.type)
    if (
        not field.required
        and field.default is msgspec.NODEFAULT
        and field.default_factory is msgspec.NODEFAULT
    ):
        raise DeclarationError(
            f"{where} may be UNSET, which no column can tell from None.",
            mend="use None instead of UNSET",
        )
    nullable = any(isinstance(found, (inspect.NoneType, inspect.AnyType)) for found in types)
    nullable = nullable or any(
        isinstance(found, inspect.LiteralType) and None in found.values for found in types
    )
    kind = _kind([found for found in types if not isinstance(found, inspect.NoneType)])
    default = _default(field, kind)
    if omits and nullable and default is not None:
        raise DeclarationError(
            f"{where} is left out where it is {default}, and NULL where it is None: JSON without it"
            " would mean both.",
            mend="let its default be None, or do without omit_defaults",
        )
    return Column(field.name, field.encode_name, kind, nullable, default, omitted=omits)


def _types(found: inspect.Type) -> list[inspect.Type]:
    if isinstance(found, inspect.Metadata):
        return _types(found.type)
    if isinstance(found, inspect.UnionType):
        return [part for each in found.types for part in _types(each)]
    return [found]


def _kind(types: list[inspect.Type]) -> Kind:
    if len(types) != 1:
        return _JSONB
    (found,) = types
    if isinstance(found, inspect.DateTimeType):
        return Kind("timestamp without time zone") if found.tz is False else _MOMENT
    if isinstance(found, inspect.TimeType):
        # A column for times with a zone would show them in a form that JSON's readers refuse.
        return Kind("time without time zone") if found.tz is False else _TEXT
    values: list[Any] = []
    if isinstance(found, inspect.EnumType):
        values = [one.value for one in found.cls]
    if isinstance(found, inspect.LiteralType):
        values = [value for value in found.values if value is not None]
    if values:
        alike = {type(value) for value in values}
        return _TEXT if alike == {str} else _BIGINT if alike == {int} else _JSONB
    return _KINDS.get(type(found), _JSONB)


def _default(field: inspect.Field, kind: Kind) -> str | None:
    value = field.default
    if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT or value is None:
        return None
    if kind is _JSONB:
        return msgspec.json.encode(value).decode()
    if isinstance(value, dt.timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    plain = value.value if isinstance(value, enum.Enum) else value
    return str(msgspec.to_builtins(plain))


def _distinct(view: type, columns: list[Column]) -> None:
    names = [column.name for column in columns]
    if len(set(names)) < len(names):  # msgspec would not let it, a dataclass might
        raise DeclarationError(f"{view.__name__} has two fields of one name.")
