from __future__ import annotations

import msgspec
import pytest

from readside.apps.bench.check import last
from readside.apps.bench.growth import shapes
from readside.apps.bench.plan import PARTS, RATES, Backlog, plan, transactions
from readside.apps.bench.subject import document, saved
from readside.core.errors import SettingsError


def settled(**changes):
    given = {"quick": False, "rounds": None, "events": None, "only": "", "growth": False}
    return plan(**(given | changes))


def test_the_whole_and_the_quick():
    assert settled().parts == frozenset(PARTS)
    assert settled(quick=True).parts == frozenset(PARTS) - {"growth"}
    assert settled(quick=True, growth=True).parts == frozenset(PARTS)
    assert settled().backlog.events == 300_000
    assert settled(quick=True).rates == (1000,)


def test_a_speed_comes_with_its_limit():
    assert settled(only="direct").parts == {"direct", "limit"}
    assert settled(only="frames").parts == {"frames", "limit"}
    assert settled(only="latency, record").parts == {"latency", "record"}


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"events": 199}, {"only": "speed"}])
def test_what_makes_no_sense(changes):
    with pytest.raises(SettingsError):
        settled(**changes)


@pytest.mark.parametrize("rate", RATES)
def test_transactions_make_the_rate(rate):
    per_second, each = transactions(rate)
    assert per_second * each == rate
    assert per_second <= 1000


def test_every_document_can_be_told_beforehand():
    shape = Backlog(10, 4)
    state = {}
    for number in range(shape.events):
        event = saved(number, shape.documents, shape.payload)
        state[event.id] = document(event)
    assert {event.id: document(event) for event in last(shape)} == state


@pytest.mark.parametrize("payload", [300, 1000, 32_000])
def test_a_payload_is_about_as_large_as_was_asked_for(payload):
    sizes = [len(msgspec.json.encode(saved(n, 1000, payload))) for n in (0, 1, 999, 299_999)]
    assert all(abs(size - payload) < 60 for size in sizes)


def test_shapes_that_grow_begin_with_the_one_they_are_compared_with():
    found = shapes(Backlog(300_000, 100_000))
    assert next(iter(found.values())) == Backlog(300_000, 100_000)
    assert max(shape.events for shape in found.values()) == 3_000_000
    assert all(shape.events >= 2 * 100 for shape in found.values())
