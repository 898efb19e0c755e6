from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readside.core.errors import DecodeError
from readside.core.position import Position
from readside.core.token import Token

TOKENS = st.builds(
    Token,
    st.builds(Position, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.just(0)),
    st.lists(st.integers(0, 1023), max_size=20, unique=True).map(lambda n: tuple(sorted(n))),
)


@given(TOKENS)
@example(Token(Position(1, 2, 0), tuple(range(1024))))
@example(Token(Position(1, 2, 0), ()))
def test_a_token_comes_back_from_its_text(token):
    assert Token.parse(str(token)) == token


@given(TOKENS)
def test_a_token_is_safe_for_urls_and_cookies(token):
    text = str(token)
    assert quote(text, safe="") == text
    assert re.fullmatch(r"[A-Za-z0-9.-]+", text)


@given(st.text(max_size=60) | st.from_regex(r"r1-[0-9a-f]{0,9}-[0-9a-f]{0,17}-[0-9.]{0,9}"))
def test_garbage_is_refused_and_never_misread(text):
    with suppress(DecodeError):
        token = Token.parse(text)
        assert Token.parse(str(token)) == token
        assert re.fullmatch(r"r1-[0-9a-f]+-[0-9a-f]+-[0-9.]*", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r1",
        "r1-1-2",
        "r2-1-2-3",
        "R1-1-2-3",
        "r1--2-3",
        "r1-1--3",
        "r1-g-2-3",
        "r1-1-2-3.",
        "r1-1-2-.3",
        "r1-1-2-3..4",
        "r1-1-2-3,4",
        "r1-1-2-3\n",
        " r1-1-2-3",
        "r1-123456789-2-3",
        "r1-1-12345678901234567-3",
        "r1-1-2-123456",
        "r1-1-2-٣",
        "r1-1-2-" + ".".join(["1"] * 1025),
    ],
)
def test_no_token(text):
    with pytest.raises(DecodeError):
        Token.parse(text)


def test_a_long_text_is_not_repeated_whole_in_the_error():
    with pytest.raises(DecodeError) as caught:
        Token.parse("x" * 100_000)
    assert len(str(caught.value)) < 300
