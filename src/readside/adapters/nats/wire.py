"""How records look on NATS: the event's plain JSON, and one header.

    subject     <app>.<partition>.<type>
    Readside    <id> <version> <position> <predecessor> <nth> <committed at, microseconds since 1970>
                <settled> <key, percent-encoded>

One and short, for every header costs both sides. Trace context travels in headers of its own;
one whose name NATS forbids or keeps for itself travels as Readside-X-<name, percent-encoded>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from readside.core.errors import DecodeError
from readside.core.position import BEGINNING, Encoder, Position
from readside.core.record import Record, Watermark

HEADER = "Readside"
_OTHER = "Readside-X-"

#: Names that mean something to the server, to its clients or to readside.
_KEPT = re.compile(r"(readside|nats)-|(readside|status|description)$", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$&'*+\-.^_`|~0-9A-Za-z]+")


class Writer:
    """Writes the headers of messages.

    A record's predecessor is nearly always the record before it in its partition, whose position
    was written a moment ago.
    """

    def __init__(self) -> None:
        self._encode = Encoder().encode
        self._last: dict[int, tuple[Position, str]] = {}

    def headers_of(self, record: Record) -> dict[str, str]:
        """The headers of a record's message."""
        partition, position, predecessor, nth, id_, _, key, version, _, recorded_at, further, _, settled = record  # fmt: skip
        text = self._encode(position)
        before, before_text = self._last.get(partition, _NOTHING)
        if before != predecessor:
            before_text = predecessor.encode()
        self._last[partition] = (position, text)
        if not (key.isalnum() and key.isascii()):
            key = quote(key)
        headers = {
            HEADER: f"{id_} {version} {text} {before_text} {nth} {recorded_at} {settled:x} {key}"
        }
        if further:
            headers |= {
                _name(name): quote(str(value), safe=_SAFE)
                for name, value in _object(further).items()
            }
        return headers


#: A position that no record has, for its ordinal.
_NOTHING = (BEGINNING, BEGINNING.encode())


def _object(text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}  # written past readside; an event must not wait for ever behind its trace context


# Without blanks: NATS takes them away from both ends.
_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def _name(name: str) -> str:
    if _TOKEN.fullmatch(name) and not _KEPT.match(name):
        return name
    return _OTHER + quote(name, safe="")


def _further(headers: Mapping[str, str]) -> bytes:
    kept = {
        unquote(name.removeprefix(_OTHER)): unquote(value)
        for name, value in headers.items()
        if name != HEADER
    }
    return msgspec.json.encode(kept)


def lines_of(headers: Mapping[str, str]) -> str:
    """Headers as they travel; everything in them is ASCII without line ends."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def headers_in(block: bytes) -> dict[str, str]:
    """Read a block of headers, as it came; of lines that are none, nothing.

    Raises:
        DecodeError: it is no text.
    """
    try:
        lines = block.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise DecodeError(f"A message on the stream is not readside's: {error!r}") from error
    pairs = [line.partition(":") for line in lines]
    return {name: value.strip() for name, colon, value in pairs if colon}


class Reader:
    """Reads the messages of one partition back."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        # The position of the latest record is nearly always the predecessor of the next one.
        self._last, self._last_text = _NOTHING

    def record_of(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None, offset: str = ""
    ) -> Record:
        """Read a message.

        Raises:
            DecodeError: it is not one of readside's.
        """
        try:
            headers = headers or {}
            id_, version, position, before, nth, recorded_at, settled, key = headers[HEADER].split(" ")  # fmt: skip
            _, _, type_ = subject.split(".", 2)
            at = Position.decode(position)
            predecessor = self._last if before == self._last_text else Position.decode(before)
            self._last, self._last_text = at, position
            # tuple's own constructor: that of a NamedTuple is a Python function around it.
            return tuple.__new__(
                Record,
                (
                    self._partition,
                    at,
                    predecessor,
                    int(nth),
                    id_,
                    type_,
                    unquote(key) if "%" in key else key,
                    1 if version == "1" else int(version),
                    payload,
                    int(recorded_at),
                    _further(headers) if len(headers) > 1 else b"",
                    offset,
                    0 if settled == "0" else int(settled, 16),
                ),
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
