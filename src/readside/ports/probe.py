"""Named moments in the flow, where tests look on, wait, or kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[str], None]] = []


def probe(moment: str) -> None:
    """Pass a moment; costs nothing while nobody listens."""
    if _listeners:
        for listener in tuple(_listeners):
            listener(moment)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` with the name of every moment passed; what it raises, the stage raises."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
