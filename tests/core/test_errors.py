from __future__ import annotations

import copy
import pickle

from hypothesis import given
from hypothesis import strategies as st

from readside.core import errors

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip)


@given(TEXT, TEXT)
def test_a_message_is_heading_detail_and_mend(detail, mend):
    error = errors.DecodeError(detail, mend=mend)
    heading = "A recorded event cannot be decoded."
    assert str(error) == f"{heading} {detail}".strip() + (f"\n  mend: {mend}" if mend else "")
    assert (error.detail, error.mend) == (detail, mend)


def test_without_detail_the_heading_is_the_message():
    assert str(errors.FencedError()) == errors.FencedError.__doc__
    assert str(errors.ReadsideError("x")).startswith("Something went wrong in readside. x")


def test_errors_are_also_what_python_calls_them():
    assert issubclass(errors.DeclarationError, TypeError)
    assert issubclass(errors.SettingsError, ValueError)
    assert issubclass(errors.AdapterNotFoundError, LookupError)
    assert issubclass(errors.PayloadError, ValueError)
    assert issubclass(errors.DecodeError, ValueError)
    assert issubclass(errors.StaleReadError, TimeoutError)


def test_an_error_comes_back_from_another_process():
    error = errors.HandlerError("It raised.", mend="mend it")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is errors.HandlerError
    assert str(back) == str(error)
    assert str(copy.copy(error)) == str(error)
