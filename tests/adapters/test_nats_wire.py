"""Records through the header block of NATS, as its ADR-4 describes it."""

from __future__ import annotations

import re
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readside.adapters.nats.wire import (
    CHAIN,
    EVENT,
    ID,
    headers_of,
    record_of,
    watermark_of,
    watermark_text,
)
from readside.core.errors import DecodeError
from readside.core.position import BEGINNING, Position
from readside.core.record import Record, Watermark

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
POSITIONS = st.builds(
    Position, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
)
FURTHER = st.dictionaries(TEXT, TEXT, max_size=4)
RECORDS = st.builds(
    Record,
    partition=st.integers(0, 1023),
    position=POSITIONS,
    predecessor=POSITIONS,
    nth=st.integers(1, 2**63),
    id=st.uuids().map(str),
    type=st.from_regex(r"[a-z0-9_-]{1,9}(\.[a-z0-9_-]{1,9}){0,2}", fullmatch=True),
    key=TEXT.filter(bool),
    version=st.integers(1, 2**31 - 1),
    payload=st.binary(max_size=30),
    recorded_at=st.integers(0, 2**53),
    headers=st.just(b"") | FURTHER.map(msgspec.json.encode),
    offset=TEXT,
    settled=st.integers(0, 2**64 - 1),
)
PLAIN = Record(3, Position(1, 2, 3), BEGINNING, 1, "id", "user.created", "42", 1, b"{}", 5)


def carried(headers: dict[str, str]) -> dict[str, str]:
    """What arrives: a block of lines, names are tokens, values lose the blanks at their ends."""
    block = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
    lines = block.decode().split("\r\n")[:-1]
    assert len(lines) == len(headers), "a header became several"
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


@given(RECORDS)
@example(PLAIN._replace(headers=b'{"":" ","a b":" x ","%":"%41","\\r\\nEvil":"\\r\\nEvil: 1"}'))
@example(PLAIN._replace(key="%41"))
@example(PLAIN._replace(key=" "))
def test_a_record_comes_back_from_its_message(record):
    headers = carried(headers_of(record))
    back = record_of(record.partition, record.payload, headers, record.offset)
    assert back._replace(headers=b"") == record._replace(headers=b"")
    sent = msgspec.json.decode(record.headers) if record.headers else {}
    assert (msgspec.json.decode(back.headers) if back.headers else {}) == sent


@given(RECORDS)
def test_no_key_and_no_header_can_end_its_line(record):
    for name, value in headers_of(record).items():
        assert re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert re.fullmatch(r"[\x20-\x7e]*", value)
        assert value == value.strip()


RESERVED = [
    ID,
    EVENT,
    CHAIN,
    "readside-chain",
    "Readside-X-a",
    "Readside-X-",
    "Status",
    "status",
    "Description",
    "Nats-Msg-Id",
    "Nats-Rollup",
    "nats-ttl",
    "Nats-Expected-Last-Sequence",
]


@pytest.mark.parametrize("name", RESERVED)
def test_a_recorded_header_gives_no_orders_to_nats_or_readside(name):
    record = PLAIN._replace(headers=msgspec.json.encode({name: "all"}))
    headers = headers_of(record)
    assert {k: v for k, v in headers.items() if k in (ID, EVENT, CHAIN)} == headers_of(PLAIN)
    (further,) = [header for header in headers if header not in (ID, EVENT, CHAIN)]
    assert further.startswith("Readside-X-")
    back = record_of(3, b"{}", carried(headers), "")
    assert msgspec.json.decode(back.headers) == {name: "all"}


@pytest.mark.parametrize(
    "name", ["traceparent", "tracestate", "baggage", "x-request-id", "Statusx"]
)
def test_trace_context_travels_under_its_own_name(name):
    record = PLAIN._replace(headers=msgspec.json.encode({name: "00-abc-01"}))
    assert headers_of(record)[name] == "00-abc-01"


@pytest.mark.parametrize(
    "headers", [b"[1]", b'"x"', b"7", b"null", b"{", b"\xff", b'{"a":"\\ud800"}']
)
def test_headers_that_are_no_object_stop_nobody(headers):
    assert headers_of(PLAIN._replace(headers=headers)) == headers_of(PLAIN)


def test_values_that_are_no_text_arrive_as_text():
    record = PLAIN._replace(headers=b'{"attempt":2,"flags":{"a":true}}')
    assert headers_of(record)["attempt"] == "2"


def test_a_plain_key_stays_readable():
    assert headers_of(PLAIN)[EVENT] == "user.created 1 42"
    assert headers_of(PLAIN._replace(key="a b/ü"))[EVENT] == "user.created 1 a%20b/%C3%BC"


def damaged():
    good = headers_of(PLAIN)
    chain = good[CHAIN]
    yield from (
        {name: value for name, value in good.items() if name != left_out} for left_out in good
    )
    yield {}
    yield good | {EVENT: "user.created"}
    yield good | {EVENT: "user.created one 42"}
    yield good | {CHAIN: ""}
    yield good | {CHAIN: chain + " 1"}
    yield good | {CHAIN: chain.replace("-", ":", 1)}
    yield good | {CHAIN: chain.rsplit(" ", 1)[0]}
    yield good | {CHAIN: chain.rsplit(" ", 1)[0] + " soon"}
    yield good | {CHAIN: chain.rsplit(" ", 2)[0] + " soon 0"}


@pytest.mark.parametrize("headers", list(damaged()))
def test_a_foreign_message_is_refused(headers):
    with pytest.raises(DecodeError, match="is not readside's"):
        record_of(0, b"{}", headers, "")


@given(st.dictionaries(st.sampled_from([ID, EVENT, CHAIN, "x"]), TEXT))
def test_arbitrary_headers_raise_nothing_but_decode_error(headers):
    with suppress(DecodeError):
        record_of(0, b"{}", headers, "")


@given(st.builds(Watermark, st.integers(0, 1023), POSITIONS, st.integers(0, 2**63), POSITIONS))
def test_a_watermark_comes_back_from_its_text(watermark):
    assert watermark_of(watermark.partition, watermark_text(watermark)) == watermark


@given(st.binary(max_size=60))
def test_a_damaged_watermark_is_refused(text):
    with pytest.raises(DecodeError):
        watermark_of(0, text)
