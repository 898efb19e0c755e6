"""Rows of the outbox: how events are recorded in the user's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from readside.core.errors import PayloadError
from readside.core.event import Event, encode, key_of
from readside.core.message import LARGEST_HEADERS

#: Events in one statement.
_AT_ONCE = 5000

_ONE = (
    b"INSERT INTO readside.outbox (id, app, aggregatetype, aggregateid, type, version, payload, headers)"
    b" VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
#: Also says whether the commit will wait for the disk: a statement less for the most frequent case.
_ONE_AND_HOW = _ONE + b" RETURNING current_setting('synchronous_commit')"
#: Returns it alone.
HOW = b"SELECT current_setting('synchronous_commit')"
_MANY = (
    b"INSERT INTO readside.outbox (id, app, aggregatetype, aggregateid, type, version, payload, headers)"
    b" SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],"
    b" %s::json[], %s::json[])"
)

Row = tuple[Any, ...]
Statement = tuple[bytes, list[Any]]

_decoders: dict[type[Event], Callable[[bytes], Any]] = {}


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
    _check(event, payload)
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
        _headers(headers) if headers else None,
    )


def _check(event: Event, payload: bytes) -> None:
    """Read the event back once: msgspec checks types when it reads, not when a struct is made."""
    decode = _decoders.get(type(event))
    if decode is None:
        decode = _decoders[type(event)] = msgspec.json.Decoder(type(event)).decode
    try:
        decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(
            f"{type(event).__name__} does not fit its own fields: {error}",
            mend="convert the values first, or change the types of the event's fields",
        ) from error


def _headers(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str) and name and name.isprintable()):
            raise PayloadError(
                f"Header {name!r} cannot travel.", mend="use printable names, and text as values"
            )
    try:
        text = msgspec.json.encode(headers)
    except (TypeError, ValueError) as error:
        raise PayloadError(f"The headers cannot be written as JSON: {error}") from error
    if len(text) > LARGEST_HEADERS:
        raise PayloadError(
            f"The headers have {len(text)} bytes of JSON, {LARGEST_HEADERS} are allowed.",
            mend="put what is large into the event",
        )
    return text.decode()


def closing(rows: Sequence[Row]) -> Iterator[Statement]:
    """Those that record rows; the last one returns the `synchronous_commit` of the transaction."""
    if len(rows) == 1:
        yield _ONE_AND_HOW, list(rows[0])
        return
    yield from statements(rows)
    yield HOW, []


def statements(rows: Sequence[Row]) -> Iterator[Statement]:
    """The statements that record rows, each with its values."""
    if len(rows) == 1:
        yield _ONE, list(rows[0])
        return
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        yield _MANY, [list(column) for column in zip(*part, strict=True)]
