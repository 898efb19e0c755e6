"""Events as messages of the log, in the user's own transaction: the outbox without a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from readside.core.errors import PayloadError
from readside.core.message import LONGEST_TYPE, pack
from readside.write.outbox import Row, Statement

#: Events and bytes in one statement.
_AT_ONCE = 5000
_BYTES = 16 * 1024 * 1024

#: Returns the `synchronous_commit` of the transaction. The array goes in binary: as text it would double.
_EMIT = b"SELECT readside.emit(%s, %b)"


def statements(rows: Sequence[Row]) -> Iterator[Statement]:
    """The statements that write the messages of rows, in their order; each says how the commit will be.

    Raises:
        PayloadError: an event's type is too long.
    """
    contents: list[bytes] = []
    size = 0
    for row in rows:
        content = _content(row)
        if contents and (len(contents) == _AT_ONCE or size + len(content) > _BYTES):
            yield _EMIT, [rows[0][1], contents]
            contents, size = [], 0
        contents.append(content)
        size += len(content)
    if contents:
        yield _EMIT, [rows[0][1], contents]


def _content(row: tuple[Any, ...]) -> bytes:
    id_, _, _, key, wire, version, payload, headers = row
    if len(wire) > LONGEST_TYPE:  # what was committed could not be refused
        raise PayloadError(
            f"The wire type of {wire[:40]}… is longer than {LONGEST_TYPE} characters."
        )
    return pack(str(id_), wire, key, version, payload.encode(), headers and headers.encode())
