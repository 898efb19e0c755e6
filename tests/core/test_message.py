"""An event's message: what is packed is unpacked, and what could not travel is refused."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DecodeError
from readside.core.message import pack, prefix_of, unpack

ID = "7e8a3b0e-6c1d-4c53-9f0b-0a5d5e0c7f11"
KEY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128)
WORD = st.text("abcz09_-", min_size=1, max_size=9)
JSON = st.recursive(st.none() | st.booleans() | st.text(max_size=9), st.lists, max_leaves=9)


@given(
    st.uuids(), st.lists(WORD, min_size=1, max_size=4), KEY, st.integers(1, 2**31 - 1),
    JSON, st.none() | st.dictionaries(WORD, st.text(max_size=9)),
)  # fmt: skip
def test_what_is_packed_is_unpacked(
    id_: UUID, words: list[str], key: str, version: int, payload: object, headers: object
) -> None:
    encoded, above = msgspec.json.encode(payload), headers and msgspec.json.encode(headers)
    found = unpack(pack(str(id_), ".".join(words), key, version, encoded, above or None))
    assert (found.id, found.type, found.key) == (str(id_), ".".join(words), key)
    assert (found.version, bytes(found.payload)) == (version, encoded)
    assert bytes(found.headers) == (above or b"null")


def test_the_payload_is_kept_as_it_stands_there() -> None:
    payload = '{ "x" :\t[ 1.50, "ключ\\u0000" ] }'.encode()
    assert bytes(unpack(pack(ID, "a", "k", 1, payload, None)).payload) == payload


@given(st.binary(max_size=60))
def test_junk_is_refused_in_our_own_words(junk: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack(junk)


@given(st.data())
def test_a_damaged_message_is_refused_or_read(data: st.DataObject) -> None:
    whole = bytearray(pack(ID, "a.b", "key", 1, b'{"id":1}', b'{"x":"y"}'))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unpack(bytes(whole))
    except DecodeError:
        return
    assert found.key.isprintable() or all(
        ord(letter) > 0x7F for letter in found.key if not letter.isprintable()
    )


def test_no_app_s_prefix_is_the_mark_of_a_hand_over() -> None:
    assert prefix_of("handover") == "readside:event:handover"
