"""Tables: what a user may say about the table of a view, where the read store has tables."""

from __future__ import annotations

import msgspec


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """How a projection's documents lie in a table: a row each, and a typed column for each field.

    Nothing has to be said. Other read stores than PostgreSQL take no notice of it.

    Example:
        >>> Table(name="reading.users", key="id", indexes=("lower(email)",)).name
        'reading.users'
    """

    #: Its name, perhaps after a schema's and a dot; by default the projection's, in a schema of the app's name.
    name: str = ""
    #: The field of the view which is the document's key, or the name of another column for the key's text;
    #: by default a column ``key`` before the view's own.
    key: str = ""
    #: What CREATE INDEX says between its parentheses: ``"lower(email)"``, ``"city, name DESC"``.
    indexes: tuple[str, ...] = ()
    #: Table constraints: ``"CHECK (stock >= 0)"``. Documents that break one are parked.
    constraints: tuple[str, ...] = ()
    #: The table is yours, with all its columns: readside checks that they fit, and writes only rows.
    existing: bool = False
