"""Records through the header block of NATS, as its ADR-4 describes it."""

from __future__ import annotations

import re
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readside.adapters.nats.wire import (
    HEADER,
    Reader,
    Writer,
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
SUBJECT = "shop.3.user.created"


def headers_of(record: Record) -> dict[str, str]:
    return Writer().headers_of(record)


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
    subject = f"shop.{record.partition}.{record.type}"
    reader = Reader(record.partition)
    back = reader.record_of(subject, record.payload, headers, record.offset)
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
    HEADER,
    "readside",
    "Readside-Id",
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
    assert {HEADER: headers[HEADER]} == headers_of(PLAIN)
    (further,) = [header for header in headers if header != HEADER]
    assert further.startswith("Readside-X-")
    back = Reader(3).record_of(SUBJECT, b"{}", carried(headers))
    assert msgspec.json.decode(back.headers) == {name: "all"}


@pytest.mark.parametrize(
    "name", ["traceparent", "tracestate", "baggage", "x-request-id", "Statusx"]
)
def test_trace_context_travels_under_its_own_name(name):
    record = PLAIN._replace(headers=msgspec.json.encode({name: "00-abc-01"}))
    assert headers_of(record)[name] == "00-abc-01"


@pytest.mark.parametrize(
    "headers",
    [
        b"[1]",
        b'"x"',
        b"7",
        b"null",
        b"{",
        b"\xff",
        b'{"a":"\\ud800"}',
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
    ids=map(str, range(8)),
)
def test_headers_that_are_no_object_stop_nobody(headers):
    assert headers_of(PLAIN._replace(headers=headers)) == headers_of(PLAIN)


def test_values_that_are_no_text_arrive_as_text():
    record = PLAIN._replace(headers=b'{"attempt":2,"flags":{"a":true}}')
    assert headers_of(record)["attempt"] == "2"


def test_a_plain_key_stays_readable():
    assert headers_of(PLAIN)[HEADER].endswith(" 42")
    assert headers_of(PLAIN._replace(key="a b/ü"))[HEADER].endswith(" a%20b/%C3%BC")


def damaged():
    good = headers_of(PLAIN)[HEADER]
    id_, version, position, before, nth, at, settled, key = good.split(" ")
    yield None
    yield {}
    yield {"Readside-Id": good}
    yield {HEADER: ""}
    yield {HEADER: good + " 1"}
    yield {HEADER: good.rsplit(" ", 1)[0]}
    yield {HEADER: good.replace("-", ":")}
    yield {HEADER: f"{id_} one {position} {before} {nth} {at} {settled} {key}"}
    yield {HEADER: f"{id_} {version} {position} {before} soon {at} {settled} {key}"}
    yield {HEADER: f"{id_} {version} {position} {before} {nth} soon {settled} {key}"}
    yield {HEADER: f"{id_} {version} {position} {before} {nth} {at} soon {key}"}
    yield {HEADER: f"{id_} {version} {position[1:]} {before} {nth} {at} {settled} {key}"}
    yield {HEADER: f"{id_} {version} {position} {before.upper()}x {nth} {at} {settled} {key}"}


@pytest.mark.parametrize("headers", list(damaged()))
def test_a_foreign_message_is_refused(headers):
    with pytest.raises(DecodeError, match="is not readside's"):
        Reader(3).record_of(SUBJECT, b"{}", headers)


@pytest.mark.parametrize("subject", ["", "shop", "shop.3"])
def test_a_foreign_subject_is_refused(subject):
    with pytest.raises(DecodeError, match="is not readside's"):
        Reader(3).record_of(subject, b"{}", headers_of(PLAIN))


@given(st.lists(RECORDS, max_size=8), st.data())
def test_records_come_back_whatever_was_written_and_read_before(records, data):
    """Writer and reader remember the latest position; it must never stand for another."""
    chained = []
    for record in records:
        before = record.predecessor
        if chained and data.draw(st.booleans()):
            before = data.draw(st.sampled_from(chained)).position
        partition = record.partition % 2
        chained.append(
            record._replace(predecessor=before, partition=partition, headers=b"", offset="")
        )
    writer, readers = Writer(), {number: Reader(number) for number in (0, 1)}
    for record in chained:
        headers = carried(writer.headers_of(record))
        subject = f"shop.{record.partition}.{record.type}"
        assert readers[record.partition].record_of(subject, record.payload, headers) == record


@given(st.dictionaries(st.sampled_from([HEADER, "x"]), TEXT))
def test_arbitrary_headers_raise_nothing_but_decode_error(headers):
    with suppress(DecodeError):
        Reader(3).record_of(SUBJECT, b"{}", headers)


@given(st.builds(Watermark, st.integers(0, 1023), POSITIONS, st.integers(0, 2**63), POSITIONS))
def test_a_watermark_comes_back_from_its_text(watermark):
    assert watermark_of(watermark.partition, watermark_text(watermark)) == watermark


@given(st.binary(max_size=60))
def test_a_damaged_watermark_is_refused(text):
    with pytest.raises(DecodeError):
        watermark_of(0, text)
