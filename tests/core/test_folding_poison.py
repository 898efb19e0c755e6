"""Folding, where an event cannot be applied: what is parked, and what goes on beside it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.baskets import (
    FOLDER,
    KEY,
    NOTHING,
    SOUND,
    Added,
    Broke,
    Emptied,
    Spoiled,
    World,
    history_of,
    in_one,
    record_of,
)

from readside.core.errors import DecodeError, HandlerError
from readside.core.event import Event
from readside.core.folding import UNROUTED, Folder, Stored, positions_of
from readside.core.overwriting import overwritten
from readside.core.position import Position
from readside.core.projection import Projection
from readside.core.record import Record
from readside.core.view import View

#: Broke comes seldom, or everything would be parked at once.
MIXED = st.one_of(SOUND, SOUND, SOUND, st.builds(Broke, KEY))


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


class Rusty(BaseException):
    """As the panics of extensions that are written in Rust."""


class Inner(msgspec.Struct):
    text: str


class Odd(Event, key="id"):
    id: str
    kind: str = ""

    def __post_init__(self) -> None:
        if self.kind == "event":
            raise KeyError(self.kind)


class Nested(View):
    inner: Any


def odd_folder(*, wants_view: bool, routed: bool = False) -> Folder[Any]:
    """Documents of which some come to nothing in ways that nobody expects of a handler."""
    projection = Projection("odd", Nested)

    def make(event: Odd) -> Nested:
        inner = Inner("x")
        if event.kind == "unset":
            del inner.text
        elif event.kind == "cancelled":
            raise asyncio.CancelledError
        elif event.kind == "panic":
            raise Rusty
        elif event.kind == "interrupted":
            raise KeyboardInterrupt
        elif event.kind == "exit":
            raise SystemExit
        return Nested(inner)

    def key(event: Odd) -> str:
        make(event)
        return event.id

    def remake(event: Odd, _: Nested | None) -> Nested:
        return make(event)

    projection.on(Odd, key=key if routed else None)(remake if wants_view else make)
    return Folder(projection)


def odd_records(kind: str) -> list[Record]:
    payload = b'{"id":"bad","kind":"%s"}' % kind.encode()
    bad = [record_of(Odd("bad"), n)._replace(payload=payload) for n in (2, 3)]
    return [record_of(Odd("good"), 1), *bad, record_of(Odd("fine"), 4)]


@pytest.mark.parametrize("wants_view", [False, True])
@pytest.mark.parametrize("kind", ["unset", "cancelled", "panic", "event"])
def test_whatever_comes_out_of_a_handler_parks_its_document_alone(kind, wants_view):
    folder, records = odd_folder(wants_view=wants_view), odd_records(kind)
    assert overwritten(odd_folder(wants_view=False).projection, records) is None
    folded = folder.fold(folder.route(records), dict.fromkeys(("good", "bad", "fine"), NOTHING))
    assert [write.key for write in folded.writes] == ["good", "fine"]
    assert [poison.step.record.id for poison in folded.poisons] == ["2"]
    assert isinstance(folded.poisons[0].error, (HandlerError, DecodeError))
    if kind != "event":  # it is the event's class that fails, and its mend is another
        assert "readside dead-letters retry" in folded.poisons[0].error.mend
    assert [step.record.id for step in folded.held] == ["3"]


@pytest.mark.parametrize("kind", ["cancelled", "panic"])
def test_whatever_comes_out_of_a_routing_function_parks_the_events_of_its_key(kind):
    folder = odd_folder(wants_view=False, routed=True)
    steps = folder.route(odd_records(kind))
    assert [step.key for step in steps] == ["good", UNROUTED + "bad", UNROUTED + "bad", "fine"]


@pytest.mark.parametrize("wants_view", [False, True])
@pytest.mark.parametrize(
    ("kind", "error"), [("interrupted", KeyboardInterrupt), ("exit", SystemExit)]
)
def test_a_handler_that_ends_the_process_is_not_held_up(kind, error, wants_view):
    folder, records = odd_folder(wants_view=wants_view), odd_records(kind)
    with pytest.raises(error):
        folder.fold(folder.route(records), dict.fromkeys(("good", "bad", "fine"), NOTHING))
    with pytest.raises(error):
        overwritten(odd_folder(wants_view=False).projection, records)


@pytest.mark.parametrize(
    "garbage",
    ["7", ":", "0:", "zero:1", "0:0", ";", "+", "0:" + "z" * 34, "\ufffd", "0:" + "0" * 34 + ";1:"],
)
@pytest.mark.parametrize("late", [False, True])
def test_positions_that_somebody_else_has_written_park_their_document_alone(garbage, late):
    folder, records = odd_folder(wants_view=False), odd_records("")
    loaded = {"good": NOTHING, "bad": Stored(b"{}", garbage), "fine": NOTHING}
    folded = folder.fold(folder.route(records), loaded, late=late)
    assert [write.key for write in folded.writes] == ["good", "fine"]
    ((step, error, base),) = folded.poisons
    assert (step.record.id, base) == ("2", "")
    assert isinstance(error, DecodeError)
    assert "readside reset" in error.mend
    assert [step.record.id for step in folded.held] == ["3"]
