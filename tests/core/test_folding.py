"""Folding, by its laws: a small world of documents fed with arbitrary histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DecodeError, HandlerError
from readside.core.event import Event, encode
from readside.core.folding import (
    UNROUTED,
    Folder,
    Stored,
    contains,
    late_of,
    positions_of,
    positions_text,
)
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection
from readside.core.record import Record
from readside.core.view import View

NOTHING = Stored(None, "")


class Added(Event, key="id"):
    id: str
    item: str
    also: tuple[str, ...] = ()


class Emptied(Event, key="id"):
    id: str


class Broke(Event, key="id"):
    id: str


class Spoiled(Event, key="id"):
    """Makes a view which is no JSON."""

    id: str


class Basket(View):
    items: tuple[Any, ...] = ()


baskets = Projection("basket", Basket)


@baskets.on(Added, key=lambda event: [event.id, *event.also])
def added(event: Added, basket: Basket | None) -> Basket:
    return Basket((*(basket.items if basket else ()), event.item))


@baskets.on(Emptied)
def emptied(event: Emptied) -> None:
    return None


@baskets.on(Broke)
def broke(event: Broke) -> Basket:
    raise RuntimeError(event.id)


@baskets.on(Spoiled)
def spoiled(event: Spoiled, basket: Basket | None) -> Basket:
    return Basket((*(basket.items if basket else ()), object()))


FOLDER = Folder(baskets)


def record_of(event: Event, lsn: int, partition: int = 0) -> Record:
    return Record(
        partition=partition,
        position=Position(1, lsn, 1),
        predecessor=BEGINNING,
        nth=lsn,
        id=str(lsn),
        type=event.__event_type__,
        key=event.id,  # type: ignore[attr-defined]
        version=1,
        payload=encode(event),
        recorded_at=0,
    )


class World:
    """A store that compares and sets, and the documents that are parked, as the projector keeps them."""

    def __init__(self) -> None:
        self.documents: dict[str, Stored] = {}
        self.parked: dict[str, list[str]] = {}

    def apply(self, records: list[Record]):
        steps = FOLDER.route(records)
        free = [step for step in steps if step.key not in self.parked]
        waiting = [step for step in steps if step.key in self.parked]
        folded = FOLDER.fold(free, {step.key: self.load(step.key) for step in free})
        assert len({write.key for write in folded.writes}) == len(folded.writes)
        for write in folded.writes:
            assert write.expected == self.load(write.key).positions
            self.documents[write.key] = Stored(write.document, write.positions)
        away = [*(poison.step for poison in folded.poisons), *folded.held, *waiting]
        for step in sorted(away, key=lambda step: step.record.position):
            self.parked.setdefault(step.key, []).append(step.record.id)
        assert folded.applied + folded.skipped + len(folded.poisons) + len(folded.held) == len(free)
        return folded

    def load(self, key: str) -> Stored:
        return self.documents.get(key, NOTHING)

    def items(self, key: str) -> tuple[Any, ...] | None:
        document = self.load(key).document
        return None if document is None else baskets.codec.decode(document).items


KEY = st.sampled_from("abc")
ADDED = st.builds(Added, KEY, st.text("xyz", max_size=2), st.lists(KEY, max_size=2).map(tuple))
SOUND = st.one_of(ADDED, st.builds(Emptied, KEY))
#: Broke comes seldom, or everything would be parked at once.
MIXED = st.one_of(SOUND, SOUND, SOUND, st.builds(Broke, KEY))


def history_of(events, partitions=1, draw=None):
    return [
        record_of(event, lsn, 0 if partitions == 1 else draw(st.integers(0, partitions - 1)))
        for lsn, event in enumerate(events, 1)
    ]


def split(draw, history):
    """The history in batches, each possibly with records repeated that came before."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(history) - 1)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        yield history[start - draw(st.integers(0, start)) : end]


def in_one(history):
    world = World()
    world.apply(history)
    return world


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


@given(st.lists(MIXED, max_size=20), st.data())
def test_what_is_parked_is_the_same_in_any_split(events, data):
    history = history_of(events)
    once, world = in_one(history), World()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(history) - 1)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        world.apply(history[start:end])
    assert world.documents == once.documents
    assert world.parked == once.parked


@given(st.lists(MIXED, max_size=20))
def test_a_poison_holds_back_exactly_the_later_steps_of_its_document(events):
    history = history_of(events)
    folded = World().apply(history)
    for key in "abc":
        mine = [step for step in FOLDER.route(history) if step.key == key]
        bad = next((n for n, step in enumerate(mine) if isinstance(step.event, Broke)), None)
        poisons = [poison.step for poison in folded.poisons if poison.step.key == key]
        held = [step for step in folded.held if step.key == key]
        if bad is None:
            assert (poisons, held) == ([], [])
        else:
            assert (poisons, held) == ([mine[bad]], mine[bad + 1 :])
    assert all(isinstance(poison.error, HandlerError) for poison in folded.poisons)


@given(st.lists(MIXED, max_size=20))
def test_other_documents_are_as_if_the_poison_had_never_been(events):
    world = in_one(history_of(events))
    sound = in_one(
        [
            record
            for record, event in zip(history_of(events), events, strict=True)
            if not isinstance(event, Broke)
        ]
    )
    for key in set("abc") - set(world.parked):
        assert world.load(key) == sound.load(key)


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


#: Once a view is spoiled, all that follow hold the spoiled item, until it is emptied.
SPOILED = st.lists(st.one_of(SOUND, SOUND, st.builds(Spoiled, KEY)), max_size=14)


@given(SPOILED)
def test_a_view_that_cannot_be_written_is_found_as_poison(events):
    """Whatever the batch ends with, it is the first unwritable view that is parked, and all before it is kept."""
    history = history_of(events)
    folded = World().apply(history)
    world = in_one(history)
    for key in "abc":
        mine = [step for step in FOLDER.route(history) if step.key == key]
        spoiled_at = [n for n, step in enumerate(mine) if isinstance(step.event, Spoiled)]
        emptied_at = [n for n, step in enumerate(mine) if isinstance(step.event, Emptied)]
        poisons = [poison for poison in folded.poisons if poison.step.key == key]
        written = not spoiled_at or (emptied_at and emptied_at[-1] > spoiled_at[-1])
        if written:  # nothing unwritable is left at the end of the batch: nobody has noticed
            assert not poisons
            continue
        first = spoiled_at[0]
        assert [poison.step for poison in poisons] == [mine[first]]
        assert "cannot be written as JSON" in str(poisons[0].error)
        assert [step for step in folded.held if step.key == key] == mine[first + 1 :]
        before = in_one([step.record for step in mine[:first]])
        assert world.load(key) == before.load(key)


def test_a_delete_before_an_unwritable_view_stays_a_delete():
    world = in_one(history_of([Added("a", "x"), Emptied("a"), Spoiled("a")]))
    assert world.load("a").document is None
    assert positions_of(world.load("a").positions) == {0: Position(1, 2, 1).encode()}
    assert world.parked == {"a": ["3"]}


def test_what_cannot_be_decoded_is_filed_under_its_own_key_where_that_is_its_document():
    bad = record_of(Emptied("a"), 1)._replace(payload=b'{"id":')
    newer = record_of(Emptied("b"), 2)._replace(version=2)
    world = World()
    folded = world.apply([bad, newer, record_of(Added("a", "y"), 3), record_of(Added("c", "z"), 4)])
    assert [type(poison.error) for poison in folded.poisons] == [DecodeError, DecodeError]
    assert world.parked == {"a": ["1", "3"], "b": ["2"]}
    assert world.items("c") == ("z",)


def test_where_nobody_knows_the_document_the_events_of_the_key_wait_in_their_order():
    world = World()
    bad = record_of(Added("a", "x", ("",)), 1)
    folded = world.apply(
        [bad, record_of(Added("a", "y", ("b",)), 2), record_of(Added("b", "z"), 3)]
    )
    assert isinstance(folded.poisons[0].error, HandlerError)
    assert world.parked == {UNROUTED + "a": ["1", "2"]}
    assert world.items("b") == ("z",)
    later = record_of(Added("a", "w"), 4)
    step = FOLDER.waits(later, world.parked)
    assert step is not None
    assert step.key == UNROUTED + "a"
    assert FOLDER.waits(record_of(Added("b", "w"), 5), world.parked) is None
    assert FOLDER.waits(record_of(Emptied("a"), 6), world.parked) is None  # its document is known


def test_what_was_never_tried_is_parked_for_the_reason_given():
    reason = HandlerError("it killed two processes")
    step = FOLDER.untried(record_of(Broke("a"), 1), reason)
    assert step is not None
    folded = FOLDER.fold([step], {"a": NOTHING})
    assert [(poison.step.key, poison.error) for poison in folded.poisons] == [("a", reason)]
    unknown = record_of(Broke("a"), 1)._replace(type="nobody.wants.it")
    assert FOLDER.untried(unknown, reason) is None


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


def test_a_view_whose_values_do_not_fit_its_fields_is_poison():
    class Priced(Event, key="id"):
        id: str

    class Price(View):
        amount: float

    prices = Projection("price", Price)

    @prices.on(Priced)
    def priced(event: Priced) -> Price:
        return Price(float("nan") if event.id == "nan" else "much")  # type: ignore[arg-type]

    folder = Folder(prices)
    for key in ("nan", "text"):
        steps = folder.route([record_of(Priced(key), 1)])
        folded = folder.fold(steps, {key: NOTHING})
        assert "do not fit" in str(folded.poisons[0].error)
        assert not folded.writes


def test_a_stored_document_that_does_not_fit_is_the_poison_of_the_step_that_needs_it():
    world = World()
    world.documents["a"] = Stored(b'{"items":7}', "0:" + Position(1, 1, 1).encode())
    folded = world.apply([record_of(Added("a", "x"), 2)])
    assert isinstance(folded.poisons[0].error, DecodeError)
    assert folded.writes == ()
    # A handler that does not look at the view is not hindered by it.
    other = World()
    other.documents["a"] = Stored(b'{"items":7}', "")
    assert other.apply([record_of(Emptied("a"), 2)]).writes[0].document is None


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
