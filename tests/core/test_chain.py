from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.chain import Chain, Head, Verdict, judge
from readside.core.partition import partition_of
from readside.core.position import Position
from readside.core.record import Captured, Record

ORIGIN = Position(1, 100, 0)
KEYS = st.sampled_from([str(number) for number in range(12)])


@st.composite
def histories(draw, longest=12):
    """Committed transactions: a few events each, at growing places of the log."""
    events = []
    lsn = ORIGIN.lsn
    for keys in draw(st.lists(st.lists(KEYS, min_size=1, max_size=4), max_size=longest)):
        lsn += draw(st.integers(1, 50))
        for ordinal, key in enumerate(keys, 1):
            position = Position(ORIGIN.epoch, lsn, ordinal)
            events.append(Captured(position, f"id{len(events)}", "it.was", key, 1, b"{}", lsn))
    return events


@given(histories(), st.integers(1, 5))
def test_each_record_names_the_one_before_it_in_its_partition(history, partitions):
    records = Chain(partitions, ORIGIN, {}).stamp(history)
    last = dict.fromkeys(range(partitions), Head(ORIGIN, 0))
    for record, event in zip(records, history, strict=True):
        assert record.partition == partition_of(event.key, partitions)
        assert record.predecessor == last[record.partition].position
        assert record.nth == last[record.partition].nth + 1
        assert (record.id, record.key, record.payload) == (event.id, event.key, event.payload)
        assert (record.position, record.recorded_at) == (event.position, event.recorded_at)
        last[record.partition] = Head(record.position, record.nth)


@given(histories(), st.integers(1, 5), st.data())
def test_a_relay_that_starts_anywhere_stamps_the_same_records(history, partitions, data):
    whole = Chain(partitions, ORIGIN, {})
    cut = data.draw(st.integers(0, len(history)))
    first = whole.stamp(history[:cut])
    heads = dict(enumerate(whole.heads))
    second = whole.stamp(history[cut:])
    assert Chain(partitions, ORIGIN, heads).stamp(history[cut:]) == second
    assert Chain(partitions, ORIGIN, {}).stamp(history) == first + second


@given(histories(), st.integers(0, 600))
def test_a_watermark_names_the_last_record_and_never_less_than_it(history, lsn):
    chain = Chain(2, ORIGIN, {})
    chain.stamp(history)
    for number in range(2):
        mark = chain.watermark(number, Position(1, lsn, 0))
        assert (mark.last, mark.nth) == chain.heads[number]
        assert mark.position == max(Position(1, lsn, 0), mark.last)


@pytest.mark.parametrize(
    ("applied", "predecessor", "position", "verdict"),
    [
        (5, 5, 9, Verdict.NEXT),
        (5, 3, 9, Verdict.NEXT),  # a watermark moved the consumer on
        (5, 3, 5, Verdict.DUPLICATE),
        (5, 3, 4, Verdict.DUPLICATE),
        (5, 6, 9, Verdict.HOLE),
        (0, 0, 1, Verdict.NEXT),
        (0, 1, 2, Verdict.HOLE),
    ],
)
def test_verdicts(applied, predecessor, position, verdict):
    record = stamped(predecessor, position, 8)
    assert judge(Head(Position(1, applied, 0), 7), record) is verdict


@pytest.mark.parametrize("nth", [1, 6, 7, 9, 1000])
def test_a_record_that_follows_by_its_position_only_is_of_another_history(nth):
    assert judge(Head(Position(1, 5, 0), 7), stamped(5, 9, nth)) is Verdict.FORK
    assert judge(Head(Position(1, 5, 0), 7), stamped(3, 5, nth)) is Verdict.DUPLICATE
    assert judge(Head(Position(1, 5, 0), 7), stamped(6, 9, nth)) is Verdict.HOLE


def stamped(predecessor, position, nth):
    at = [Position(1, lsn, 0) for lsn in (position, predecessor)]
    return Record(0, *at, nth, "", "some.thing", "key", 1, b"", 0)


@given(histories(longest=10), st.data())
def test_whoever_follows_the_verdicts_never_skips_a_record(history, data):
    """The broker loses, repeats and reorders; watermarks come late, early or never."""
    chain = Chain(1, ORIGIN, {})
    records = chain.stamp(history)
    numbers = st.integers(0, max(0, len(records) - 1))
    applied, taken = Head(ORIGIN, 0), []
    for number in data.draw(st.lists(numbers, max_size=40)) if records else []:
        record = records[number]
        verdict = judge(applied, record)
        assert verdict is not Verdict.FORK
        if verdict is Verdict.NEXT:
            taken.append(record)
            applied = Head(record.position, record.nth)
        elif verdict is Verdict.HOLE:
            assert record.position > records[len(taken)].position
        if data.draw(st.booleans()):  # a watermark as of some record, followed as the lane does
            last = records[data.draw(numbers)].position
            if last <= applied.position:
                following = next((r.position.lsn for r in records if r.position > last), 10_000)
                applied = applied._replace(
                    position=max(applied.position, Position(1, following, 0))
                )
        assert taken == records[: len(taken)]


@given(histories(longest=4), st.randoms(use_true_random=False))
def test_whatever_the_order_enough_repeats_bring_everything(history, random):
    records = Chain(1, ORIGIN, {}).stamp(history)
    applied, taken = Head(ORIGIN, 0), []
    for _ in records:  # each round brings every record, and so at least the next one
        for record in random.sample(records, len(records)):
            if judge(applied, record) is Verdict.NEXT:
                taken.append(record)
                applied = Head(record.position, record.nth)
    assert taken == records
