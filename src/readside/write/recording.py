"""The two ways to record: rows of the outbox's table, or messages of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from readside.write import messages, outbox
from readside.write.outbox import Row, Statement


class Recording(NamedTuple):
    """How rows are recorded."""

    #: The statements that do so.
    statements: Callable[[Sequence[Row]], Iterable[Statement]]
    #: The same before a commit: the last one returns the `synchronous_commit` of the transaction, before
    #: the commit takes back a SET LOCAL.
    closing: Callable[[Sequence[Row]], Iterable[Statement]]


def _closing(rows: Sequence[Row]) -> Iterable[Statement]:
    return messages.statements(rows) if rows else [(outbox.HOW, [])]


TABLE: Final = Recording(outbox.statements, outbox.closing)
MESSAGE: Final = Recording(messages.statements, _closing)
