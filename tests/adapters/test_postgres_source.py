"""The outbox's reader, fed with frames as PostgreSQL's documentation describes them."""

from __future__ import annotations

from collections import deque
from struct import pack
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.adapters.postgres.messages import NEVER, Admission
from readside.adapters.postgres.source import OutboxReader
from readside.core import pgoutput
from readside.core.errors import DecodeError
from readside.core.message import pack as packed
from readside.core.position import Position
from readside.core.record import Captured

EPOCH = 7
#: Of the table as it is, and as PostgreSQL tells it where columns can be chosen.
COLUMNS = ["id", "aggregatetype", "aggregateid", "type", "payload", "version", "app", "headers"]
CHOSEN = ["id", "aggregateid", "type", "payload", "version", "headers"]


def data(message: bytes) -> bytes:
    return b"w" + pack("!QQq", 0, 0, 0) + message


def keepalive(lsn: int, reply: bool = False) -> bytes:
    return b"k" + pack("!Qqb", lsn, 0, reply)


def begin(lsn: int, committed_at: int = 0) -> bytes:
    return data(b"B" + pack("!QqI", lsn, committed_at - 946_684_800_000_000, 1))


def commit(lsn: int, end: int) -> bytes:
    return data(b"C" + pack("!bQQq", 0, lsn, end, 0))


def relation(oid: int, columns: list[str] = COLUMNS) -> bytes:
    made = b"R" + pack("!I", oid) + b"readside\0outbox_shop\0" + b"d" + pack("!h", len(columns))
    for column in columns:
        made += b"\0" + column.encode() + b"\0" + pack("!Ii", 25, -1)
    return data(made)


def insert(oid: int, event: Captured, columns: list[str] = COLUMNS) -> bytes:
    values = {
        "id": event.id.encode(),
        "aggregatetype": b"user",
        "aggregateid": event.key.encode(),
        "type": event.type.encode(),
        "payload": event.payload,
        "version": str(event.version).encode(),
        "app": b"shop",
        "headers": event.headers or None,
    }
    made = b"I" + pack("!I", oid) + b"N" + pack("!h", len(columns))
    for column in columns:
        value = values.get(column)
        made += b"n" if value is None else b"t" + pack("!i", len(value)) + value
    return data(made)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
CONTENT = st.tuples(
    TEXT, TEXT, st.integers(1, 9), st.binary(max_size=9), st.sampled_from([b"", b"{}"])
)


@st.composite
def streams(draw):
    """Frames, and what they say: (frames, events, end of the last commit)."""
    columns = draw(st.sampled_from([COLUMNS, CHOSEN]))
    # A partition is told too, after the table as which its rows come.
    frames, events, lsn = [relation(16, columns), relation(17, columns)], [], 100
    for group in draw(st.lists(st.lists(CONTENT, max_size=5), max_size=6)):
        lsn += draw(st.integers(1, 40))
        committed_at = draw(st.integers(10**15, 2 * 10**15))
        frames.append(begin(lsn, committed_at))
        for ordinal, (type_, key, version, payload, headers) in enumerate(group, 1):
            if draw(st.booleans()):
                frames.append(keepalive(lsn + 1_000_000))  # means nothing inside a transaction
            position = Position(EPOCH, lsn, ordinal)
            event = Captured(
                position,
                str(UUID(int=len(events))),
                type_,
                key,
                version,
                payload,
                committed_at,
                headers,
            )
            frames.append(insert(16, event, columns))
            events.append(event)
        end = lsn + draw(st.integers(1, 9))
        frames.append(commit(lsn, end))
        lsn = end
    return frames, events, lsn


@given(streams(), st.data())
def test_rows_become_events_however_the_frames_arrive(stream, draws):
    frames, events, end = stream
    reader = OutboxReader(EPOCH, 50)
    waiting: deque[bytes] = deque()
    captured: list[Captured] = []
    while frames or waiting:
        arrived = draws.draw(st.integers(0 if waiting else 1, 5))
        waiting.extend(frames[:arrived])
        frames = frames[arrived:]
        limit = draws.draw(st.integers(1, 4))
        taken = reader.take(waiting, limit)
        captured += taken
        assert len(taken) <= limit
        # Settled never promises an event that has not been handed out.
        outstanding = events[len(captured) :]
        assert all(event.position.lsn >= reader.settled for event in outstanding)
    assert captured == events
    assert reader.settled == (end if end > 100 else 50)


@given(streams())
def test_a_repeated_stream_gives_the_same_positions(stream):
    frames, events, _ = stream
    for settled in (0, 10**9):
        assert OutboxReader(EPOCH, settled).take(deque(frames), 10**6) == events


def test_a_keepalive_between_transactions_moves_settled_on_and_never_back():
    reader = OutboxReader(EPOCH, 100)
    for lsn, settled in ((500, 500), (400, 500), (501, 501)):
        reader.take(deque([keepalive(lsn)]), 10)
        assert reader.settled == settled
    assert not reader.wants_reply


def test_a_keepalive_inside_a_transaction_settles_nothing_but_may_want_an_answer():
    reader = OutboxReader(EPOCH, 100)
    reader.take(deque([begin(200), keepalive(900, reply=True)]), 10)
    assert reader.settled == 100
    assert reader.wants_reply
    reader.take(deque([commit(200, 210), keepalive(211)]), 10)
    assert reader.settled == 211
    assert reader.wants_reply  # until somebody has answered


EVENT = Captured(Position(EPOCH, 200, 1), str(UUID(int=1)), "user.created", "42", 1, b"{}", 0, b"")


@pytest.mark.parametrize("columns", [COLUMNS, CHOSEN], ids=["all", "chosen"])
def test_columns_are_found_by_name_also_after_a_change_of_the_table(columns):
    reordered = [*columns[1:], columns[0]]
    frames = [
        begin(200),
        relation(16, columns),
        insert(16, EVENT, columns),
        insert(16, EVENT, columns),
        relation(16, reordered),
        insert(16, EVENT, reordered),
        relation(17, columns[::-1]),
        insert(17, EVENT, columns[::-1]),
    ]
    taken = OutboxReader(EPOCH, 0).take(deque(frames), 10)
    assert [event._replace(position=EVENT.position, recorded_at=0) for event in taken] == [
        EVENT
    ] * 4
    assert [event.position.ordinal for event in taken] == [1, 2, 3, 4]


def test_rows_of_the_usual_columns_take_the_short_way(monkeypatch):
    """Else a change that closes it would go unseen, for the long way does the same."""
    long = []
    inserted = pgoutput.inserted
    monkeypatch.setattr(pgoutput, "inserted", lambda *at: long.append(at) or inserted(*at))
    frames = [begin(200), relation(16, CHOSEN), relation(17, CHOSEN)]
    frames += [insert(16, EVENT, CHOSEN)] * 5
    assert len(OutboxReader(EPOCH, 0).take(deque(frames), 10)) == 5
    assert len(long) == 1  # the first row of a table says whose they are


def test_an_outbox_that_lacks_a_column_is_refused():
    with pytest.raises(DecodeError, match="outbox_shop lacks a column"):
        OutboxReader(EPOCH, 0).take(deque([relation(16, COLUMNS[1:])]), 10)


def test_what_is_no_row_makes_no_event():
    update = data(b"U" + pack("!I", 16) + b"N" + pack("!h", 0))
    delete = data(b"D" + pack("!I", 16) + b"K" + pack("!h", 0))
    truncate = data(b"T" + pack("!ibI", 1, 0, 16))
    message = data(b"M" + pack("!bQ", 1, 5) + b"x\0" + pack("!i", 0))
    frames = deque([begin(200), relation(16), update, delete, truncate, message, insert(16, EVENT)])
    (event,) = OutboxReader(EPOCH, 0).take(frames, 10)
    assert event.position.ordinal == 1


@pytest.mark.parametrize("app", ["shop", "other"])
def test_the_mark_of_a_hand_over_ends_the_app_s_own_stream(app):
    content = f"{app} 1234".encode()
    mark = data(
        b"M" + pack("!bQ", 0, 5) + b"readside:handover\0" + pack("!i", len(content)) + content
    )
    frames = deque(
        [relation(16), begin(200), mark, commit(200, 210), begin(220), insert(16, EVENT)]
    )
    reader = OutboxReader(EPOCH, 0, "shop")
    events = reader.take(frames, 10)
    assert reader.mark == (content if app == "shop" else None)
    assert len(events) == (app == "other")
    reader.mark = None  # somebody else's, as it turned out
    assert len(events) + len(reader.take(frames, 10)) == 1


def message(content: bytes, prefix: str = "readside:event:shop", flags: int = 1) -> bytes:
    head = b"M" + pack("!bQ", flags, 5) + prefix.encode() + b"\0"
    return data(head + pack("!i", len(content)) + content)


def content(key: str, payload: bytes = b"{}") -> bytes:
    return packed("7e8a3b0e-6c1d-4c53-9f0b-0a5d5e0c7f11", "user.created", key, 1, payload, None)


def reading(*frames: bytes) -> tuple[OutboxReader, deque[bytes]]:
    return OutboxReader(EPOCH, 0, "shop"), deque(frames)


def test_a_message_is_asked_for_before_it_is_an_event():
    reader, frames = reading(
        relation(16), begin(200), insert(16, EVENT), message(content("1")), insert(16, EVENT)
    )
    assert [event.key for event in reader.take(frames, 10)] == ["42"]
    assert reader.asks
    assert reader.take(frames, 10) == []  # nothing is passed over meanwhile
    reader.learn(Admission(200, 100))
    events = reader.take(frames, 10)
    assert [event.key for event in events] == ["1", "42"]
    assert [event.position.ordinal for event in events] == [2, 3]
    assert not reader.asks
    assert not reader.skipped


def test_what_committed_before_messages_counted_is_passed_over_unasked():
    reader, frames = reading(begin(199), message(content("1")), commit(199, 210), begin(220))
    reader.learn(Admission(200, 100))
    reader.sure = False
    assert reader.take(frames, 10) == []
    assert len(reader.skipped) == 1
    assert not frames


def test_where_none_count_it_is_asked_again_for_frames_that_came_later():
    reader, frames = reading(begin(200), message(content("1")))
    reader.learn(Admission(NEVER, 0))
    assert reader.take(frames, 10) == []
    assert len(reader.skipped) == 1
    frames.append(message(content("2")))
    reader.sure = False
    assert reader.take(frames, 10) == []
    assert reader.asks
    reader.learn(Admission(150, 100))
    (event,) = reader.take(frames, 10)
    assert (event.key, event.position.ordinal) == ("2", 1)


def test_a_large_payload_is_asked_for_once_more_and_then_left_out():
    reader, frames = reading(begin(200), message(content("1", b'"%s"' % (b"x" * 200))))
    reader.learn(Admission(0, 100))
    reader.sure = False
    assert reader.take(frames, 10) == []
    assert reader.asks
    reader.learn(Admission(0, 100))
    (event,) = reader.take(frames, 10)
    assert event.payload == b'"readside: a payload of 202 bytes was left out, 100 are allowed"'


def test_messages_of_others_are_not_even_asked_for():
    reader, frames = reading(
        begin(200),
        message(content("1"), "readside:event:shop2"),
        message(content("1"), "readside:event:sho"),
        message(b"\xff", "\u043a"),
        message(content("1"), flags=0),
        commit(200, 210),
    )
    assert reader.take(frames, 10) == []
    assert not reader.asks
    assert len(reader.skipped) == 1  # that of no transaction
    assert reader.settled == 210
