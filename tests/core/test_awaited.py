"""What a command waits for, and of which documents."""

from __future__ import annotations

from typing import Any

import pytest

from readside.core.awaited import awaited
from readside.core.event import Event
from readside.core.folding import UNROUTED
from readside.core.projection import Mode, Projection
from readside.core.view import View
from readside.write.outbox import row_of


class Made(Event, key="id", type="thing.made"):
    id: str
    friends: list[str]


class Lost(Event, key="id", type="thing.lost"):
    id: str


class Thing(View):
    id: str


def friends(event: Made) -> list[str]:
    if "nobody" in event.friends:
        raise LookupError(event.id)
    return event.friends


def projection(mode: Mode, name: str = "thing", *, key: Any = None) -> Projection[Thing]:
    found = Projection(name, Thing, mode=mode)
    found.on(Made, key=key)(lambda event: Thing(event.id))
    return found


def rows(*events: Event) -> list[Any]:
    return [row_of("shop", event, None, 1000) for event in events]


MADE = {("thing.made", 3), ("thing.made", 1), ("thing.lost", 7)}


@pytest.mark.parametrize("mode", ["async", "inline"])
def test_nobody_waits_for_another_mode(mode):
    assert awaited([projection(mode)], MADE, rows(Made("a", []))) == {}


def test_only_the_partitions_of_events_that_it_handles_are_waited_for():
    found = awaited([projection("wait")], MADE, rows(Made("a", []), Lost("b"), Made("c", [])))
    assert found == {"thing": ((1, 3), ("a", "c"))}


def test_a_projection_that_handles_none_of_them_is_not_waited_for():
    assert awaited([projection("wait")], {("thing.lost", 7)}, rows(Lost("b"))) == {}
    assert awaited([projection("wait")], set(), []) == {}


def test_documents_are_those_that_the_routing_tells_and_where_unrouted_events_wait():
    one = projection("wait", key=friends)
    (found,) = awaited([one], MADE, rows(Made("a", ["x", "y"]), Made("b", ["x"]))).values()
    assert set(found.keys) == {"x", "y", UNROUTED + "a", UNROUTED + "b"}


def test_a_routing_that_fails_is_no_error_of_the_command():
    one = projection("wait", key=friends)
    (found,) = awaited([one], MADE, rows(Made("a", ["nobody"]))).values()
    assert set(found.keys) == {UNROUTED + "a"}


def test_of_very_many_events_the_documents_are_not_found_out():
    many = rows(*(Made(str(n), []) for n in range(1001)))
    assert awaited([projection("wait")], MADE, many)["thing"] == ((1, 3), ())
    assert len(awaited([projection("wait")], MADE, many[:1000])["thing"].keys) == 1000
