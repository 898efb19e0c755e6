from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.chain import Chain, Head
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.record import Captured
from readside.core.settling import Bookmark
from readside.core.shipping import Shipping, Wish

ORIGIN = Position(1, 100, 0)
PARTITIONS = 3
START = Bookmark(ORIGIN.lsn, (Head(ORIGIN, 0),) * PARTITIONS)


@st.composite
def transactions(draw):
    """Transactions as the source hands them over: (events, end of the commit record)."""
    made, lsn, count = [], ORIGIN.lsn, 0
    keys = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)
    for group in draw(st.lists(keys, min_size=1, max_size=10)):
        lsn += draw(st.integers(1, 30))
        events = []
        for ordinal, key in enumerate(group, 1):
            count += 1
            position = Position(1, lsn, ordinal)
            events.append(Captured(position, f"id{count}", "it.was", key, 1, b"{}", count))
        end = lsn + draw(st.integers(1, 9))
        made.append((events, end))
        lsn = end
    return made


def chunks(draw, history, lsn=0):
    """The source's stream from a place on, cut anywhere: (events, settled). Some cuts bring nothing."""
    stream = [
        (event, None if event is not events[-1] else end)
        for events, end in history
        for event in events
        if event.position.lsn >= lsn
    ]
    settled, part = lsn, []
    for event, end in stream:
        part.append(event)
        settled_before = settled
        settled = end or settled
        if end is None and draw(st.booleans()):
            yield part, settled_before
            part = []
            if draw(st.booleans()):
                yield [], settled_before  # a keepalive in the middle of a transaction
        elif end is not None and draw(st.booleans()):
            yield part, settled
            part = []
    yield part, settled


def ship(shipping, pieces):
    """What the relay does, without the waiting."""
    published, bookmarks = [], [shipping.settling.shipped]
    for events, settled in pieces:
        published += shipping.take(events)
        shipping.shipped(settled)
        if not events or settled > events[-1].position.lsn:
            shipping.mark()
        if shipping.settling.shipped != bookmarks[-1]:
            bookmarks.append(shipping.settling.shipped)
    return published, bookmarks


def truth(history):
    return Chain(PARTITIONS, ORIGIN, {}).stamp([event for events, _ in history for event in events])


@given(transactions(), st.data())
def test_an_empty_broker_gets_every_record_once_and_in_order(history, data):
    shipping = Shipping(PARTITIONS, ORIGIN, START, {})
    published, _ = ship(shipping, chunks(data.draw, history))
    assert published == truth(history)


@given(transactions(), st.data())
def test_the_heads_of_a_bookmark_are_those_of_its_place(history, data):
    shipping = Shipping(PARTITIONS, ORIGIN, START, {})
    _, bookmarks = ship(shipping, chunks(data.draw, history))
    for bookmark in bookmarks:
        before = [record for record in truth(history) if record.position.lsn < bookmark.lsn]
        for number in range(PARTITIONS):
            mine = [record for record in before if record.partition == number]
            head = Head(mine[-1].position, len(mine)) if mine else Head(ORIGIN, 0)
            assert bookmark.heads[number] == head


@given(transactions(), st.data())
def test_after_any_restart_broker_and_published_together_are_gapless(history, data):
    records = truth(history)
    first = Shipping(PARTITIONS, ORIGIN, START, {})
    _, bookmarks = ship(first, chunks(data.draw, history))
    bookmark = data.draw(st.sampled_from(bookmarks))
    # Each partition of the broker's log ends anywhere, or is gone.
    held, tails = [], {}
    for number in range(PARTITIONS):
        mine = [record for record in records if record.partition == number]
        kept = mine[: data.draw(st.integers(0, len(mine)))]
        held += kept
        if kept:
            tails[number] = kept[-1].position
    second = Shipping(PARTITIONS, ORIGIN, bookmark, tails)
    # The server may send from earlier than asked.
    begin = data.draw(st.integers(0, bookmark.lsn))
    published, _ = ship(second, chunks(data.draw, history, begin))

    assert published == sorted(published, key=lambda record: record.position)
    assert not {record.id for record in published} & {record.id for record in held}
    for number in range(PARTITIONS):
        settled = bookmark.heads[number].position  # everybody has applied up to here
        log = [r for r in (*held, *published) if r.partition == number and r.position > settled]
        wanted = [r for r in records if r.partition == number and r.position > settled]
        assert log == wanted


@given(transactions(), st.data())
def test_a_granted_wish_sends_everything_after_it_again(history, data):
    records = truth(history)
    first = Shipping(PARTITIONS, ORIGIN, START, {})
    _, bookmarks = ship(first, chunks(data.draw, history))
    bookmark = data.draw(st.sampled_from(bookmarks))
    tails = {record.partition: record.position for record in records}
    second = Shipping(PARTITIONS, ORIGIN, bookmark, tails)
    places = [ORIGIN, *(record.position for record in records)]
    wishes = [
        Wish(Unit(f"p{count}", number), after)
        for count, (number, after) in enumerate(
            data.draw(
                st.lists(
                    st.tuples(st.integers(0, PARTITIONS - 1), st.sampled_from(places)), max_size=4
                )
            )
        )
    ]
    granted = []
    for wish in wishes:
        reachable = wish.after >= bookmark.heads[wish.unit.partition].position
        assert second.grant(wish) is reachable
        granted += [wish] if reachable else []
    published, _ = ship(second, chunks(data.draw, history, bookmark.lsn))
    for number in range(PARTITIONS):
        lowest = min((w.after for w in granted if w.unit.partition == number), default=None)
        wanted = [r for r in records if r.partition == number and lowest and r.position > lowest]
        assert [record for record in published if record.partition == number] == wanted


def test_a_wish_for_an_older_history_cannot_be_granted():
    shipping = Shipping(PARTITIONS, ORIGIN, START, {0: Position(1, 120, 1)})
    assert not shipping.grant(Wish(Unit("user", 0), Position(0, 999, 1)))


@given(transactions(), st.data())
def test_watermarks_promise_only_what_was_shipped(history, data):
    records = truth(history)
    shipping = Shipping(PARTITIONS, ORIGIN, START, {})
    published = []
    for events, settled in chunks(data.draw, history):
        published += shipping.take(events)
        shipping.shipped(settled)
        for number in range(PARTITIONS):
            mark = shipping.watermark(number)
            mine = [record for record in published if record.partition == number]
            assert (mark.last, mark.nth) == (mine[-1].position if mine else ORIGIN, len(mine))
            promised = [r for r in records if r.partition == number and r.position < mark.position]
            assert promised == mine[: len(promised)]


@given(transactions(), st.data())
def test_samples_name_real_records_of_the_past(history, data):
    records = {(record.partition, record.nth): record for record in truth(history)}
    shipping = Shipping(PARTITIONS, ORIGIN, START, {})
    for events, settled in chunks(data.draw, history):
        shipping.take(events)
        shipping.shipped(settled)
        for number, samples in shipping.sample().items():
            for sample in samples:
                assert records[number, sample.nth].recorded_at == sample.recorded_at


def test_it_knows_where_it_is():
    shipping = Shipping(PARTITIONS, ORIGIN, START, {})
    assert shipping.epoch == ORIGIN.epoch
    assert shipping.settled == START.lsn
    shipping.shipped(150)
    shipping.shipped(140)
    assert shipping.settled == 150
    assert list(shipping.heads) == list(START.heads)


@given(transactions(), st.data())
def test_what_a_record_says_to_reach_has_no_further_record_of_its_partition(history, data):
    """However the stream is cut, and whatever the log holds already: nobody is led past a record."""
    everything = Chain(PARTITIONS, ORIGIN, {}).stamp([e for events, _ in history for e in events])
    tails = {
        number: data.draw(
            st.sampled_from([r.position for r in everything if r.partition == number])
        )
        for number in {record.partition for record in everything}
        if data.draw(st.booleans())
    }
    shipping = Shipping(PARTITIONS, ORIGIN, START, tails)
    told = 0
    for events, settled in chunks(data.draw, history):
        for record in shipping.tell(shipping.take(events), settled):
            assert record.reaches >= record.position
            told += record.settled > 0
            passed = [
                other
                for other in everything
                if other.partition == record.partition
                and record.position < other.position <= record.reaches
            ]
            assert not passed
        shipping.shipped(settled)
    if not tails:
        assert told  # the last piece ends with a commit
