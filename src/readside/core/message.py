"""An event as a message of the database's log: what the write side writes and the source reads."""

from __future__ import annotations

from typing import Annotated

import msgspec

from readside.core.errors import DecodeError
from readside.core.event import LONGEST_KEY

#: As large as what the outbox's table takes: bytes, bytes and characters.
LARGEST_HEADERS = 4096
LONGEST_TYPE = 200

_Headers = dict[str, object] | None
_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
_Type = Annotated[
    str, msgspec.Meta(max_length=LONGEST_TYPE, pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*\Z")
]
_Key = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z")]
_Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row of the outbox without what the log knows: a JSON array in this order."""

    id: _Id
    type: _Type
    key: _Key
    version: _Version
    #: The event's JSON as it was recorded.
    payload: msgspec.Raw
    #: A JSON object, or null.
    headers: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode
_decode_headers = msgspec.json.Decoder(_Headers).decode


def prefix_of(app: str) -> str:
    """The prefix of an app's messages: everything else in the log is told apart by it, unread."""
    return f"readside:event:{app}"


def pack(
    id_: str, type_: str, key: str, version: int, payload: bytes, headers: bytes | None
) -> bytes:
    """The content of an event's message; payload and headers are JSON already."""
    return _encode(
        (id_, type_, key, version, msgspec.Raw(payload), msgspec.Raw(headers or b"null"))
    )


def unpack(content: bytes) -> Message:
    """Read what `pack` wrote, whoever wrote it.

    Raises:
        DecodeError: it is no event, or one that the outbox's table would refuse.
    """
    try:
        message = _decode(content)
        if len(message.key) > LONGEST_KEY // 4 and len(message.key.encode()) > LONGEST_KEY:
            raise DecodeError(f"the key is longer than {LONGEST_KEY} bytes")
        if len(message.headers) > LARGEST_HEADERS:
            raise DecodeError(f"the headers are longer than {LARGEST_HEADERS} bytes")
        _decode_headers(message.headers)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(str(error)) from error
    return message
