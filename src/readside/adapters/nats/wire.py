"""How records look on NATS: the event's plain JSON, and three headers.

    subject            <app>.<partition>.<type>
    Readside-Id        the event's id
    Readside-Event     <type> <version> <key, percent-encoded>
    Readside-Chain     <position> <predecessor> <nth> <recorded at, microseconds since 1970>

Few and short, for every header costs both sides. Trace context travels in headers of its own.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import msgspec

from readside.core.errors import DecodeError
from readside.core.position import Position
from readside.core.record import Record, Watermark

ID = "Readside-Id"
EVENT = "Readside-Event"
CHAIN = "Readside-Chain"


def headers_of(record: Record) -> dict[str, str]:
    """The headers of a record's message."""
    key = record.key if record.key.isalnum() and record.key.isascii() else quote(record.key)
    headers = {
        ID: record.id,
        EVENT: f"{record.type} {record.version} {key}",
        CHAIN: f"{record.position.encode()} {record.predecessor.encode()} {record.nth} {record.recorded_at}",
    }
    if record.headers:
        further: dict[str, Any] = msgspec.json.decode(record.headers)
        headers |= {name: quote(str(value), safe=_SAFE) for name, value in further.items()}
    return headers


_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~ "


def record_of(partition: int, payload: bytes, headers: dict[str, str], offset: str) -> Record:
    """Read a message back.

    Raises:
        DecodeError: it is not one of readside's.
    """
    try:
        type_, version, key = headers[EVENT].split(" ", 2)
        position, predecessor, nth, recorded_at = headers[CHAIN].split(" ")
        further = b""
        if len(headers) > 3:  # noqa: PLR2004 - our own three
            kept = {n: unquote(v) for n, v in headers.items() if n not in (ID, EVENT, CHAIN)}
            further = msgspec.json.encode(kept)
        return Record(
            partition,
            Position.decode(position),
            Position.decode(predecessor),
            int(nth),
            headers[ID],
            type_,
            unquote(key) if "%" in key else key,
            int(version),
            payload,
            int(recorded_at),
            further,
            offset,
        )
    except (KeyError, ValueError) as error:
        raise DecodeError(f"A message on the stream is not readside's: {error!r}") from error


def watermark_text(watermark: Watermark) -> bytes:
    """Write a watermark."""
    last, position = watermark.last.encode(), watermark.position.encode()
    return f"{last} {watermark.nth} {position}".encode()


def watermark_of(partition: int, text: bytes) -> Watermark:
    """Read a watermark."""
    last, nth, position = text.decode().split(" ")
    return Watermark(partition, Position.decode(last), int(nth), Position.decode(position))
