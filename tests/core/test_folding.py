"""Folding, by its laws: a small world of documents fed with arbitrary histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.baskets import (
    FOLDER,
    NOTHING,
    SOUND,
    Added,
    Emptied,
    World,
    baskets,
    history_of,
    in_one,
    record_of,
)

from readside.core.folding import Stored, contains, late_of, positions_of, positions_text
from readside.core.position import Position
from readside.core.record import Record


def split(draw, history):
    """The history in batches, each possibly with records repeated that came before."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(history) - 1)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        yield history[start - draw(st.integers(0, start)) : end]


@given(st.lists(SOUND, max_size=20), st.data())
def test_any_split_with_any_repeats_gives_the_same_documents_and_positions(events, data):
    history = history_of(events)
    once, world = in_one(history), World()
    for batch in split(data.draw, history):
        world.apply(batch)
    assert world.documents == once.documents
    assert not world.parked


@given(st.lists(SOUND, max_size=20))
def test_a_document_is_the_fold_of_its_events(events):
    expected: dict[str, tuple[str, ...] | None] = {}
    for event in events:
        if isinstance(event, Emptied):
            expected[event.id] = None
        else:
            for key in dict.fromkeys((event.id, *event.also)):
                expected[key] = (*(expected.get(key) or ()), event.item)
    world = in_one(history_of(events))
    assert {key: world.items(key) for key in world.documents} == expected


@given(st.lists(SOUND, max_size=24), st.data())
def test_several_partitions_feed_a_document_whatever_their_interleaving(events, data):
    """Each partition keeps its order, and each event has its effect exactly once."""
    history = history_of(events, 3, data.draw)
    lanes = [[record for record in history if record.partition == number] for number in range(3)]
    done = [0, 0, 0]
    world = World()
    applied: list[Record] = []
    while any(done[number] < len(lanes[number]) for number in range(3)):
        number = data.draw(st.sampled_from([n for n in range(3) if done[n] < len(lanes[n])]))
        start = data.draw(st.integers(0, done[number]))  # a checkpoint that went back repeats
        end = data.draw(st.integers(done[number] + 1, len(lanes[number])))
        world.apply(lanes[number][start:end])
        applied += lanes[number][done[number] : end]
        done[number] = end
    expected: dict[str, Any] = {}
    seen: dict[str, dict[int, str]] = {}
    for record in applied:
        for step in FOLDER.route([record]):
            basket = expected.get(step.key)
            expected[step.key] = baskets.fold(step.route, step.event, basket)
            seen.setdefault(step.key, {})[record.partition] = record.position.encode()
    assert {key: world.items(key) for key in world.documents} == {
        key: basket and basket.items for key, basket in expected.items()
    }
    assert {key: positions_of(world.load(key).positions) for key in seen} == seen


def test_a_deleted_document_keeps_its_positions_so_that_no_old_event_brings_it_back():
    history = history_of([Added("a", "x"), Emptied("a")])
    world = in_one(history)
    assert world.load("a") == Stored(None, f"0:{history[1].position.encode()}")
    folded = world.apply(history)
    assert (folded.writes, folded.applied, folded.skipped) == ((), 0, 2)
    assert world.load("a").document is None


def test_after_a_delete_the_next_event_begins_anew():
    world = in_one(history_of([Added("a", "x"), Emptied("a"), Added("a", "y")]))
    assert world.items("a") == ("y",)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_an_event_out_of_its_turn_is_applied_once_however_often_it_comes(turns: list[int]):
    records = [record_of(Added("a", str(n)), n + 1) for n in range(5)]
    stored = NOTHING
    for write in FOLDER.fold(
        FOLDER.route([record_of(Added("a", "first"), 100)]), {"a": stored}
    ).writes:
        stored = Stored(write.document, write.positions)
    for turn in turns:
        for write in FOLDER.fold(FOLDER.route([records[turn]]), {"a": stored}, late=True).writes:
            assert write.expected == stored.positions
            stored = Stored(write.document, write.positions)
    assert stored.document is not None
    items = baskets.codec.decode(stored.document).items
    assert items == ("first", *(str(turn) for turn in dict.fromkeys(turns)))
    assert positions_of(stored.positions) == {0: Position(1, 100, 1).encode()}
    # What comes in its turn still is judged by the positions alone.
    again = FOLDER.fold(FOLDER.route([record_of(Added("a", "old"), 50)]), {"a": stored})
    assert not again.writes
    newer = FOLDER.fold(FOLDER.route([record_of(Added("a", "new"), 101)]), {"a": stored})
    assert late_of(newer.writes[0].positions) == late_of(stored.positions)


def test_types_that_nobody_handles_concern_no_document():
    assert FOLDER.route([record_of(Added("a", "x"), 1)._replace(type="user.created")]) == []


def test_folding_leaves_what_was_loaded_alone():
    stored = Stored(b'{"items":["x"]}', "0:" + Position(1, 1, 1).encode())
    FOLDER.fold(FOLDER.route([record_of(Added("a", "y"), 2)]), {"a": stored})
    assert stored == Stored(b'{"items":["x"]}', "0:" + Position(1, 1, 1).encode())


PLACES = st.dictionaries(
    st.integers(0, 1023),
    st.builds(Position, st.integers(0, 9), st.integers(0, 99), st.integers(0, 9)).map(
        Position.encode
    ),
    max_size=5,
)


@given(PLACES)
def test_positions_come_back_from_their_text(positions):
    text = positions_text(positions)
    assert positions_of(text) == positions
    assert positions_text(dict(reversed(positions.items()))) == text


@given(PLACES, st.integers(0, 4), st.integers(0, 9), st.integers(0, 99))
def test_a_document_contains_a_record_if_it_is_not_newer_than_its_partition_there(
    positions, partition, epoch, lsn
):
    position = Position(epoch, lsn, 1)
    there = positions.get(partition)
    found = contains(positions_text(positions), partition, position)
    assert found is (there is not None and Position.decode(there) >= position)


@pytest.mark.parametrize("last", [Added("a", "x"), Emptied("a")])
def test_a_batch_writes_a_document_once(last):
    history = history_of([Added("a", "1"), Added("b", "2"), Emptied("b"), last])
    folded = World().apply(history)
    assert sorted(write.key for write in folded.writes) == ["a", "b"]
