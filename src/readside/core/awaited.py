"""Which projections a command waits for, and what each of them shall have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from readside.core.folding import UNROUTED, Folder
from readside.core.projection import Projection
from readside.core.record import Record, written

#: Rows of which the documents are found out; it means to read each event again.
_MOST: Final = 1000


class Awaited(NamedTuple):
    """What one projection shall have: its share of a transaction."""

    partitions: tuple[int, ...]
    #: The documents concerned; none where they are not found out, for there are too many.
    keys: tuple[str, ...]


def awaited(
    projections: Iterable[Projection[Any]],
    touched: Collection[tuple[str, int]],
    rows: Sequence[tuple[Any, ...]],
) -> dict[str, Awaited]:
    """The projections in mode ``wait`` which handle any of what a transaction recorded.

    Args:
        projections: all of the app's.
        touched: wire type and partition of every event.
        rows: of the outbox, where they are still known.
    """
    found = {}
    for projection in projections:
        if projection.mode != "wait":
            continue
        partitions = {number for wire, number in touched if wire in projection.routes}
        if partitions:
            found[projection.name] = Awaited(tuple(sorted(partitions)), _keys(projection, rows))
    return found


def _keys(projection: Projection[Any], rows: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    if len(rows) > _MOST:
        return ()
    records = [written(number, row) for number, row in enumerate(rows, 1)]
    keys = dict.fromkeys(step.key for step in Folder(projection).route(records))
    keys |= dict.fromkeys(_behind_unrouted(projection, records))
    return tuple(keys)


def _behind_unrouted(projection: Projection[Any], records: Iterable[Record]) -> Iterable[str]:
    """Where events wait whose document nobody could tell, and so those of the same key that come later."""
    for record in records:
        route = projection.routes.get(record.type)
        if route is not None and not route.by_own_key:
            yield UNROUTED + record.key
