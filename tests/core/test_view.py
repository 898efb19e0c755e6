from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import DecodeError
from readside.core.view import View, ViewCodec

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


class Line(View):
    item: str
    count: int


class Basket(View):
    id: int
    name: str | None
    total: float
    seen_at: dt.datetime | None = None
    lines: tuple[Line, ...] = ()


class Anything(View):
    value: Any


CODEC = ViewCodec(Basket)
BASKETS = st.builds(
    Basket,
    st.integers(-(2**63), 2**63),
    st.none() | TEXT,
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.datetimes(timezones=st.just(dt.UTC)),
    st.lists(st.builds(Line, TEXT, st.integers(0, 99)), max_size=3).map(tuple),
)


@given(BASKETS)
def test_a_view_comes_back_from_its_document(basket):
    assert CODEC.decode(CODEC.encode(basket)) == basket


@given(BASKETS)
def test_a_document_is_plain_json(basket):
    document = msgspec.json.decode(CODEC.encode(basket))
    assert list(document) == ["id", "name", "total", "seen_at", "lines"]
    assert document["name"] == basket.name


def test_a_view_cannot_be_changed():
    with pytest.raises(AttributeError):
        Line("tea", 1).count = 2


def test_new_fields_with_a_default_read_old_documents():
    assert CODEC.decode(b'{"id":1,"name":null,"total":0}') == Basket(1, None, 0.0)


def test_fields_that_are_gone_do_no_harm():
    assert ViewCodec(Line).decode(b'{"item":"tea","count":1,"colour":"red"}') == Line("tea", 1)


@pytest.mark.parametrize(
    "document", [b"", b"null", b"[]", b"{", b"{}", b'{"item":1,"count":1}', b"\xff", b'"\xff"']
)
def test_a_document_that_does_not_fit_is_refused_with_a_mend(document):
    with pytest.raises(DecodeError, match="does not fit Line") as caught:
        ViewCodec(Line).decode(document)
    assert "rebuild the projection" in str(caught.value)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_nothing_but_decode_error(document):
    with suppress(DecodeError):
        CODEC.decode(document)


def test_a_document_nested_without_end_is_refused():
    with pytest.raises(DecodeError):
        ViewCodec(Anything).decode(b'{"value":' + b"[" * 100_000)
