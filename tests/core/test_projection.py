# ruff: noqa: ARG005 - handlers and routings take the event, whether they look at it or not

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DeclarationError, DecodeError, HandlerError
from readside.core.event import Event, encode
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection, wanted
from readside.core.record import Record
from readside.core.view import View


class Placed(Event, key="id", type="order.placed"):
    id: int
    user: str | None
    items: tuple[str, ...] = ()


class Paid(Event, key="id", type="order.paid"):
    id: int


class Total(View):
    key: str
    count: int = 0


def projection() -> Projection[Total]:
    return Projection("total", Total)


def placed(event: Placed) -> Total:
    return Total(str(event.id))


def record_of(event: Event) -> Record:
    return Record(
        0, Position(1, 1, 1), BEGINNING, 1, "id", event.__event_type__, "k", 1, encode(event), 0
    )


@pytest.mark.parametrize("name", ["user", "a", "user-2_x", "a" * 63])
def test_names(name):
    assert Projection(name, Total).name == name


@pytest.mark.parametrize(
    "name", ["", "User", "1user", "-user", "user:x", "user ", "user\n", "{user}", "ü", "a" * 64]
)
def test_a_name_that_could_not_be_part_of_a_key_is_refused(name):
    with pytest.raises(DeclarationError, match="cannot name a projection") as caught:
        Projection(name, Total)
    assert "starting with a letter" in caught.value.mend


def test_a_handler_is_registered_and_returned_as_it_was():
    made = projection()
    assert made.on(Placed)(placed) is placed
    assert made.routes["order.placed"].handler is placed
    assert placed(Placed(1, "u")) == Total("1")


def test_an_annotated_handler_needs_no_event_class():
    made = projection()
    assert made.on(placed) is placed
    assert made.routes["order.placed"].event is Placed


def test_an_annotated_handler_may_have_a_key():
    made = projection()
    made.on(key="user")(placed)
    assert made.routes["order.placed"].keys(Placed(1, "u7")) == ("u7",)


def two(event, current):
    return Total(current.key if current else "new", current.count + 1 if current else 1)


def test_the_arity_says_whether_a_handler_wants_the_view():
    made = projection()
    made.on(Placed)(placed)
    made.on(Paid)(two)
    assert not made.routes["order.placed"].wants_view
    assert made.routes["order.paid"].wants_view
    assert made.fold(made.routes["order.paid"], Paid(1), None) == Total("new", 1)
    assert made.fold(made.routes["order.paid"], Paid(1), Total("old", 4)) == Total("old", 5)


def test_other_defaults_of_a_handler_are_its_own():
    made = projection()
    made.on(Placed)(lambda event, *rest, start=3, **more: Total("k", start))
    assert made.fold(made.routes["order.placed"], Placed(1, "u"), None) == Total("k", 3)


async def asynchronous(event):
    return Total("k")


def unannotated(event):
    return Total("k")


def nothing():
    return Total("k")


def annotated_with_something_else(event: int) -> Total:
    return Total("k")


def annotated_with_the_base(event: Event) -> Total:
    return Total("k")


def annotated_with_what_is_not_there(event: Missing) -> Total:  # noqa: F821 - the test is about it
    return Total("k")


WRONG: dict[str, tuple[Callable[[Projection[Any]], Any], str, str]] = {
    "async": (lambda p: p.on(Placed)(asynchronous), "is async", "use def"),
    "no argument": (lambda p: p.on(Placed)(lambda: None), "takes 0 arguments", "take (event)"),
    "any arguments": (lambda p: p.on(Placed)(lambda *a: None), "takes 0 arguments", "(event)"),
    "three arguments": (lambda p: p.on(Placed)(lambda a, b, c: None), "takes 3", "(event)"),
    "a required keyword": (lambda p: p.on(Placed)(lambda a, *, b: None), "takes 2", "(event)"),
    "no event class": (lambda p: p.on(Total), "is no event class", "derive it"),
    "an instance": (lambda p: p.on(7), "is no event class", "derive it"),
    "the base of events": (lambda p: p.on(Event), "is no event class", "derive it"),
    "unannotated": (lambda p: p.on(unannotated), "does not say which event", "EventClass"),
    "nothing to annotate": (lambda p: p.on(nothing), "cannot be read", "EventClass"),
    "annotated wrongly": (
        lambda p: p.on(annotated_with_something_else),
        "does not say",
        "annotate",
    ),
    "annotated with the base": (lambda p: p.on(annotated_with_the_base), "does not say", ""),
    "annotated in the dark": (lambda p: p.on(annotated_with_what_is_not_there), "cannot be", ""),
    "no such field": (lambda p: p.on(Placed, key="nr")(placed), "no field 'nr'", "id, user, items"),
    "handled already": (
        lambda p: (p.on(Placed)(placed), p.on(Placed)(placed)),
        "handles order.placed already",
        "keep one handler",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_says_how_to_mend_it(case):
    declare, detail, mend = WRONG[case]
    with pytest.raises(DeclarationError) as caught:
        declare(projection())
    assert detail in caught.value.detail
    assert caught.value.mend
    assert mend in caught.value.mend


def test_a_refused_handler_leaves_no_trace():
    made = projection()
    with pytest.raises(DeclarationError):
        made.on(Placed)(asynchronous)
    assert made.routes == {}


def keys_of(key, event):
    made = projection()
    made.on(Placed, key=key)(placed)
    return made.routes["order.placed"].keys(event)


ORDER = Placed(7, "u1", ("b", "a", "b"))


def test_routing():
    assert keys_of(None, ORDER) == ("7",)
    assert keys_of("user", ORDER) == ("u1",)
    assert keys_of(lambda event: event.user, ORDER) == ("u1",)
    assert keys_of(lambda event: event.id + 1, ORDER) == ("8",)
    assert keys_of("items", ORDER) == ("b", "a")
    assert keys_of(lambda event: [*event.items, event.id], ORDER) == ("b", "a", "7")
    assert keys_of(lambda event: {"x"}, ORDER) == ("x",)
    assert keys_of(lambda event: (item for item in event.items), ORDER) == ("b", "a")
    assert keys_of(lambda event: dict.fromkeys(event.items).keys(), ORDER) == ("b", "a")


def test_none_and_nothing_concern_no_document():
    assert keys_of("user", Placed(7, None)) == ()
    assert keys_of("items", Placed(7, "u")) == ()
    assert keys_of(lambda event: None, ORDER) == ()


@given(
    st.lists(
        st.integers() | st.text(st.characters(min_codepoint=48, max_codepoint=122)), max_size=9
    )
)
def test_several_keys_are_each_concerned_once_in_order(found):
    if "" in found:
        return
    keys = keys_of(lambda event: found, ORDER)
    assert len(set(keys)) == len(keys)
    assert list(keys) == list(dict.fromkeys(map(str, found)))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (lambda event: "", "no usable key"),
        (lambda event: ["a", None], "no usable key"),
        (lambda event: "a\nb", "no usable key"),
        (lambda event: "x" * 513, "no usable key"),
        (lambda event: event.missing, "routing of Placed raised AttributeError"),
        (lambda event: 1 // 0, "routing of Placed raised ZeroDivisionError"),
        (lambda event: (1 // 0 for _ in "x"), "routing of Placed raised ZeroDivisionError"),
    ],
)
def test_a_routing_that_fails_is_the_handlers_error(key, said):
    with pytest.raises(HandlerError, match=said) as caught:
        keys_of(key, ORDER)
    assert "readside dead-letters retry" in caught.value.mend


def test_a_route_decodes_its_records():
    made = projection()
    made.on(Placed)(placed)
    route = made.routes["order.placed"]
    assert route.decode(record_of(ORDER)) == ORDER
    with pytest.raises(DecodeError):
        route.decode(record_of(ORDER)._replace(version=2))


def fold(handler):
    made = projection()
    made.on(Placed)(handler)
    return made.fold(made.routes["order.placed"], ORDER, None)


def test_none_deletes():
    assert fold(lambda event: None) is None


def test_a_handler_that_raises_is_named():
    def broken(event):
        raise KeyError("total")

    with pytest.raises(
        HandlerError, match=r"broken of projection 'total' raised KeyError"
    ) as caught:
        fold(broken)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("result", [1, "x", {}, False, ORDER, Total])
def test_a_handler_that_returns_something_else_is_told_what_to_return(result):
    with pytest.raises(HandlerError, match="returned") as caught:
        fold(lambda event: result)
    assert caught.value.mend == "return Total, or None to delete the document"


def test_wanted_are_the_types_that_somebody_handles():
    one, other = projection(), Projection("other", Total)
    one.on(Placed)(placed)
    other.on(Placed)(placed)
    other.on(Paid)(two)
    assert wanted([one, other]) == {"order.placed", "order.paid"}
    assert wanted([]) == frozenset()
