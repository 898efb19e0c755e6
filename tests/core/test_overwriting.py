"""The short way to fold does what the long way does, or leaves it alone."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

import readside
from readside.core.folding import Folder, Stored
from readside.core.overwriting import overwritten
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection
from readside.core.record import Record


class Saved(readside.Event, key="id"):
    id: int
    name: str


class Removed(readside.Event, key="id"):
    id: int


class Moved(readside.Event, key="id"):
    id: int
    other: int


class Person(readside.View):
    id: int
    name: str


def people() -> Projection[Person]:
    projection = Projection("person", Person)
    projection.on(Saved)(lambda event: Person(event.id, event.name))
    projection.on(Removed)(lambda _: None)
    return projection


def record(nth: int, type_: str, key: int, payload: bytes) -> Record:
    at = Position(1, 100 + nth // 3, 1 + nth % 3)
    return Record(3, at, BEGINNING, nth, f"id{nth}", type_, str(key), 1, payload, 0)


GOOD = st.one_of(
    st.builds(lambda key, name: ("saved", key, {"id": key, "name": name}), st.integers(1, 3), st.text(max_size=5)),
    st.builds(lambda key: ("removed", key, {"id": key}), st.integers(1, 3)),
    st.builds(lambda key: ("unknown.type", key, {}), st.integers(1, 3)),
)  # fmt: skip
BAD = st.builds(lambda key: ("saved", key, {"id": key, "name": 7}), st.integers(1, 3))


def records_of(found) -> list[Record]:
    return [
        record(nth, type_, key, msgspec.json.encode(content))
        for nth, (type_, key, content) in enumerate(found, 1)
    ]


@given(st.lists(GOOD, min_size=1, max_size=20))
def test_it_does_what_the_long_way_does(found):
    records = records_of(found)
    folder = Folder(people())
    steps = folder.route(records)
    expected = folder.fold(steps, {step.key: Stored(None, "") for step in steps})
    assert not expected.poisons
    assert sorted(overwritten(people(), records) or []) == sorted(expected.writes)


@given(st.lists(GOOD, max_size=8), BAD, st.lists(GOOD, max_size=8))
def test_it_leaves_a_batch_alone_in_which_an_event_cannot_be_read(before, bad, after):
    assert overwritten(people(), records_of([*before, bad, *after])) is None


def _raises(event):
    raise ValueError(event)


@pytest.mark.parametrize(
    "handler",
    [
        _raises,
        lambda event: Person(event.id, 7),  # what no reader could read
        lambda event: {"id": event.id, "name": event.name},
        lambda event: Person(event.id, "\ud800"),
    ],
)
def test_it_leaves_handlers_alone_that_fail(handler):
    projection = Projection("person", Person)
    projection.on(Saved)(handler)
    assert overwritten(projection, records_of([("saved", 1, {"id": 1, "name": "Ada"})])) is None


def test_it_leaves_projections_alone_that_need_their_views_or_whose_documents_others_feed():
    records = records_of([("saved", 1, {"id": 1, "name": "Ada"})])
    reading = people()
    reading.on(Moved)(lambda _, view: view)
    assert overwritten(reading, records) is None
    elsewhere = people()
    elsewhere.on(Moved, key="other")(lambda _: None)
    assert overwritten(elsewhere, records) is None
