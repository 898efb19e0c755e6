# ruff: noqa: ARG005 - an upcaster takes the payload, whether it looks at it or not

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DeclarationError, DecodeError, PayloadError
from readside.core.event import LONGEST_KEY, Decoder, Event, encode, key_of, key_text, wire_type_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


class UserCreated(Event, key="id"):
    id: int
    name: str
    tags: tuple[str, ...] = ()
    born: dt.date | None = None


class Moved(Event, key="id", type="user.moved", version=4):
    """From version 1 to 4: address -> street and town, then a country, then the number as text."""

    id: int
    street: str
    town: str
    country: str
    number: str


@Moved.upcast(from_version=1)
def split_address(payload):
    street, _, town = payload.pop("address").partition(", ")
    return payload | {"street": street, "town": town}


@Moved.upcast(from_version=2)
def add_country(payload):
    return payload | {"country": "AT"}


@Moved.upcast(from_version=3)
def number_as_text(payload):
    return payload | {"number": str(payload["number"])}


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("UserCreated", "user.created"),
        ("User", "user"),
        ("user", "user"),
        ("HTTPRequestSent", "http.request.sent"),
        ("OrderV2Placed", "order.v2.placed"),
        ("ABC", "abc"),
        ("A", "a"),
        ("Address2Added", "address2.added"),
        ("user_created", "user.created"),
        ("_UserCreated", "user.created"),
        ("SKU", "sku"),
        ("SKUAdded", "sku.added"),
    ],
)
def test_the_wire_type_comes_from_the_class_name(name, wire):
    assert wire_type_of(name) == wire


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,7}", fullmatch=True), min_size=1, max_size=5))
def test_words_of_a_class_name_are_joined_by_dots(words):
    assert wire_type_of("".join(words)) == ".".join(word.lower() for word in words)


def test_a_declaration_says_what_it_is():
    assert UserCreated.__event_type__ == "user.created"
    assert UserCreated.__event_key__ == "id"
    assert UserCreated.__event_version__ == 1
    assert (Moved.__event_type__, Moved.__event_version__) == ("user.moved", 4)


def test_a_derived_event_keeps_the_key_and_has_its_own_type():
    class UserImported(UserCreated):
        source: str = ""

    assert UserImported.__event_key__ == "id"
    assert UserImported.__event_type__ == "user.imported"
    assert UserCreated.__event_type__ == "user.created"


def test_upcasters_are_not_shared_with_a_derived_event():
    class MovedAbroad(Moved, version=2):
        visa: str = ""

    assert MovedAbroad.__event_upcasters__ == {}


def test_an_event_cannot_be_changed():
    with pytest.raises(AttributeError):
        UserCreated(1, "Zoë").name = "x"


def declare(**arguments: Any):
    return type(Event)("UserCreated", (Event,), {"__annotations__": {"id": int}}, **arguments)


@pytest.mark.parametrize(
    ("arguments", "detail", "mend"),
    [
        ({}, "names no key", 'class UserCreated(readside.Event, key="id")'),
        ({"key": "nr"}, "has no field 'nr'; its fields are id", 'key="id"'),
        ({"key": "id", "type": "User Created"}, "no wire type", "user.created"),
        ({"key": "id", "type": "user."}, "no wire type", "user.created"),
        ({"key": "id", "type": "user.*"}, "no wire type", "user.created"),
        ({"key": "id", "type": "user.>"}, "no wire type", "user.created"),
        ({"key": "id", "type": "user\n"}, "no wire type", "user.created"),
        ({"key": "id", "version": 0}, "has version 0", "count from 1"),
    ],
)
def test_a_wrong_declaration_says_how_to_mend_it(arguments, detail, mend):
    with pytest.raises(DeclarationError) as caught:
        declare(**arguments)
    assert detail in caught.value.detail
    assert mend in caught.value.mend


def test_an_event_without_fields_is_told_so():
    with pytest.raises(DeclarationError, match="its fields are none"):

        class Empty(Event, key="id"):
            pass


def test_a_class_name_without_words_needs_a_type():
    with pytest.raises(DeclarationError, match="no wire type"):

        class _(Event, key="id"):  # noqa: N801 - the case
            id: int


@pytest.mark.parametrize("version", [0, 4, 5, -1])
def test_only_older_versions_are_upcast(version):
    with pytest.raises(DeclarationError, match=f"nothing to upcast from {version}") as caught:
        Moved.upcast(from_version=version)
    assert "name an older version" in caught.value.mend


def test_a_version_has_one_upcaster():
    with pytest.raises(DeclarationError, match="has an upcaster from version 2 already") as caught:
        Moved.upcast(from_version=2)
    assert caught.value.mend


#: What can be printed and is not too long, whatever the script.
KEYS = TEXT.filter(lambda text: text and text.isprintable() and len(text.encode()) <= LONGEST_KEY)


@given(KEYS)
def test_a_printable_text_is_its_own_key(text):
    assert key_text(text) == text


@given(st.one_of(st.integers(), st.uuids(), st.dates(), st.booleans()))
def test_other_values_are_keys_by_their_text(value):
    assert key_text(value) == str(value)


@given(TEXT, st.characters(categories=["Cc", "Cs", "Zl", "Zp"]), TEXT)
def test_control_characters_and_lone_surrogates_are_refused(before, control, after):
    with pytest.raises(PayloadError, match="cannot be printed"):
        key_text(before + control + after)


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_key_is_refused(value):
    with pytest.raises(PayloadError, match="The key is empty") as caught:
        key_text(value)
    assert caught.value.mend


@pytest.mark.parametrize("letter", ["x", "ß", "日", "🂡"])
def test_a_key_is_bounded_in_bytes(letter):
    size = len(letter.encode())
    longest = letter * (LONGEST_KEY // size) + "x" * (LONGEST_KEY % size)
    assert key_text(longest) == longest
    with pytest.raises(PayloadError, match="longer than 512 bytes"):
        key_text(longest + "x")


@given(st.integers(), TEXT, st.lists(TEXT, max_size=3).map(tuple), st.none() | st.dates())
def test_an_event_comes_back_from_its_json(number, name, tags, born):
    event = UserCreated(number, name, tags, born)
    back = Decoder(UserCreated).decode(1, encode(event))
    assert back == event
    assert key_of(back) == key_of(event) == str(number)


def test_the_payload_is_plain_json():
    event = UserCreated(1, "Zoë", ("a",), dt.date(2024, 2, 29))
    expected = '{"id":1,"name":"Zoë","tags":["a"],"born":"2024-02-29"}'
    assert encode(event) == expected.encode()


class Anything(Event, key="id"):
    id: str
    value: Any


def nested():
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [object(), "\ud800", nested(), {1j: 1}], ids=["object", "surrogate", "cycle", "key"]
)
def test_what_is_no_json_is_refused(value):
    with pytest.raises(PayloadError, match="Anything cannot be written as JSON"):
        encode(Anything("1", value))


@given(st.dictionaries(TEXT.filter(lambda name: name not in UserCreated.__struct_fields__), TEXT))
def test_unknown_fields_of_a_newer_producer_do_no_harm(further):
    payload = msgspec.json.encode({"id": 1, **further, "name": "Zoë"})
    assert Decoder(UserCreated).decode(1, payload) == UserCreated(1, "Zoë")


def test_missing_fields_take_their_defaults():
    assert Decoder(UserCreated).decode(1, b'{"id":1,"name":"Zo"}') == UserCreated(1, "Zo")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b'{"id":1}', b'{"id":"x","name":"y"}', b"\xff", b'"\xff"'],
)
def test_a_payload_that_does_not_fit_is_refused_with_a_mend(payload):
    with pytest.raises(DecodeError, match=r"user\.created version 1 does not fit") as caught:
        Decoder(UserCreated).decode(1, payload)
    assert "upcaster" in caught.value.mend


@given(st.integers(-2, 6), st.binary(max_size=60))
def test_arbitrary_payloads_of_any_version_raise_nothing_but_decode_error(version, payload):
    for event in (UserCreated, Moved):
        try:
            made = Decoder(event).decode(version, payload)
        except DecodeError:
            continue
        assert isinstance(made, event)


def test_a_payload_nested_without_end_is_refused():
    with pytest.raises(DecodeError):
        Decoder(Anything).decode(1, b'{"id":"1","value":' + b"[" * 100_000)


NEWEST = Moved(1, "Ring", "Wien", "AT", "7")


@pytest.mark.parametrize(
    ("version", "payload"),
    [
        (1, b'{"id":1,"address":"Ring, Wien","number":7}'),
        (2, b'{"id":1,"street":"Ring","town":"Wien","number":7}'),
        (3, b'{"id":1,"street":"Ring","town":"Wien","country":"AT","number":7}'),
        (4, b'{"id":1,"street":"Ring","town":"Wien","country":"AT","number":"7"}'),
    ],
)
def test_every_older_version_becomes_the_newest(version, payload):
    assert Decoder(Moved).decode(version, payload) == NEWEST


def test_a_newer_version_is_refused():
    with pytest.raises(DecodeError, match="recorded with version 5, Moved knows 4") as caught:
        Decoder(Moved).decode(5, encode(NEWEST))
    assert "deploy the projector" in caught.value.mend


def upcast_with(*upcasters):
    """An event of a version more than there are upcasters, with those."""
    made = declare(key="id", version=3)
    for version, upcaster in enumerate(upcasters, 1):
        made.upcast(from_version=version)(upcaster)
    return Decoder(made)


def test_a_missing_upcaster_is_named():
    decoder = upcast_with(lambda payload: payload)
    with pytest.raises(DecodeError, match="no upcaster from version 2") as caught:
        decoder.decode(1, b'{"id":1}')
    assert caught.value.mend == "@UserCreated.upcast(from_version=2)"


@pytest.mark.parametrize("payload", [b'{"id":1}', b"[]", b"null"])
def test_an_upcaster_that_raises_is_named(payload):
    decoder = upcast_with(lambda payload: payload, lambda payload: payload["missing"])
    with pytest.raises(DecodeError, match="from version 2 raised") as caught:
        decoder.decode(1, payload)
    assert "readside dead-letters retry" in caught.value.mend


def test_an_upcaster_that_forgets_to_return_is_refused():
    decoder = upcast_with(lambda payload: payload, lambda payload: None)
    with pytest.raises(DecodeError, match="does not fit"):
        decoder.decode(1, b'{"id":1}')


def test_an_upcast_payload_may_hold_what_json_knows_as_text():
    class Booked(Event, key="id", version=2):
        id: uuid.UUID
        day: dt.date
        seats: dict[int, str]

    Booked.upcast(from_version=1)(lambda payload: payload | {"day": "2024-02-29"})
    event = Booked(uuid.UUID(int=7), dt.date(2024, 2, 29), {1: "A"})
    payload = msgspec.json.decode(encode(event))
    del payload["day"]
    assert Decoder(Booked).decode(1, msgspec.json.encode(payload)) == event
