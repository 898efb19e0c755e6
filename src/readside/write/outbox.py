"""Rows of the outbox: how events are recorded in the user's own transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from readside.core.errors import PayloadError
from readside.core.event import Event, encode, key_of

#: Events in one statement.
_AT_ONCE = 5000

_ONE = (
    b"INSERT INTO readside.outbox (id, app, aggregatetype, aggregateid, type, version, payload, headers)"
    b" VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
_MANY = (
    b"INSERT INTO readside.outbox (id, app, aggregatetype, aggregateid, type, version, payload, headers)"
    b" SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],"
    b" %s::json[], %s::json[])"
)

Row = tuple[Any, ...]


def row_of(app: str, event: Event, headers: Mapping[str, str] | None, largest: int) -> Row:
    """Turn an event into a row of the outbox.

    Raises:
        PayloadError: the event has no usable key, is no JSON, or is larger than `largest` bytes.
    """
    if not isinstance(event, Event):
        raise PayloadError(
            f"{type(event).__name__} is no event.", mend="derive its class from readside.Event"
        )
    payload = encode(event)
    wire = event.__event_type__
    if len(payload) > largest:
        raise PayloadError(
            f"{type(event).__name__} has {len(payload)} bytes of JSON, {largest} are allowed.",
            mend="store the large part elsewhere and record where it is, or raise max_payload",
        )
    return (
        uuid4(),
        app,
        wire.partition(".")[0],
        key_of(event),
        wire,
        event.__event_version__,
        payload.decode(),
        msgspec.json.encode(headers).decode() if headers else None,
    )


def statements(rows: Sequence[Row]) -> Iterator[tuple[bytes, list[Any]]]:
    """The statements that record rows, each with its values."""
    if len(rows) == 1:
        yield _ONE, list(rows[0])
        return
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        yield _MANY, [list(column) for column in zip(*part, strict=True)]
