"""How records look on NATS: the event's plain JSON, and three headers.

    subject            <app>.<partition>.<type>
    Readside-Id        the event's id
    Readside-Event     <type> <version> <key, percent-encoded>
    Readside-Chain     <position> <predecessor> <nth> <recorded at, microseconds since 1970> <settled>

Few and short, for every header costs both sides. Trace context travels in headers of its own;
one whose name NATS forbids or keeps for itself travels as Readside-X-<name, percent-encoded>.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from readside.core.errors import DecodeError
from readside.core.position import Position
from readside.core.record import Record, Watermark

ID = "Readside-Id"
EVENT = "Readside-Event"
CHAIN = "Readside-Chain"
_OTHER = "Readside-X-"

#: Names that mean something to the server, to its clients or to readside.
_KEPT = re.compile(r"(readside|nats)-|(status|description)$", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$&'*+\-.^_`|~0-9A-Za-z]+")


def headers_of(record: Record) -> dict[str, str]:
    """The headers of a record's message."""
    key = record.key if record.key.isalnum() and record.key.isascii() else quote(record.key)
    headers = {
        ID: record.id,
        EVENT: f"{record.type} {record.version} {key}",
        CHAIN: f"{record.position.encode()} {record.predecessor.encode()} {record.nth}"
        f" {record.recorded_at} {record.settled:x}",
    }
    if record.headers:
        headers |= {
            _name(name): quote(str(value), safe=_SAFE)
            for name, value in _object(record.headers).items()
        }
    return headers


def _object(text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}  # written past readside; an event must not wait for ever behind its trace context


# Without blanks: NATS takes them away from both ends.
_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def _name(name: str) -> str:
    if _TOKEN.fullmatch(name) and not _KEPT.match(name):
        return name
    return _OTHER + quote(name, safe="")


def _further(headers: dict[str, str]) -> bytes:
    kept = {
        unquote(name.removeprefix(_OTHER)): unquote(value)
        for name, value in headers.items()
        if name not in (ID, EVENT, CHAIN)
    }
    return msgspec.json.encode(kept)


def record_of(partition: int, payload: bytes, headers: dict[str, str], offset: str) -> Record:
    """Read a message back.

    Raises:
        DecodeError: it is not one of readside's.
    """
    try:
        type_, version, key = headers[EVENT].split(" ", 2)
        position, predecessor, nth, recorded_at, settled = headers[CHAIN].split(" ")
        further = b""
        if len(headers) > 3:  # noqa: PLR2004 - our own three
            further = _further(headers)
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
            int(settled, 16),
        )
    except (KeyError, ValueError) as error:
        raise DecodeError(f"A message on the stream is not readside's: {error!r}") from error


def watermark_text(watermark: Watermark) -> bytes:
    """Write a watermark."""
    last, position = watermark.last.encode(), watermark.position.encode()
    return f"{last} {watermark.nth} {position}".encode()


def watermark_of(partition: int, text: bytes) -> Watermark:
    """Read a watermark.

    Raises:
        DecodeError: it is none.
    """
    try:
        last, nth, position = text.decode().split(" ")
        return Watermark(partition, Position.decode(last), int(nth), Position.decode(position))
    except ValueError as error:
        raise DecodeError(f"A message on the stream is no watermark: {error!r}") from error
