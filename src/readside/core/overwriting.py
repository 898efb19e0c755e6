"""Folding where handlers take the event alone: what a document was before does not matter.

Most projections of most apps are of that kind, and most batches hold nothing unusual. Then nothing
has to be loaded: the store itself sees that each document is older than what it becomes, in the
one round trip that writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from readside.core.folding import Write
from readside.core.position import Encoder
from readside.core.projection import Projection
from readside.core.record import Record

_new = tuple.__new__


def overwritten(projection: Projection[Any], records: Iterable[Record]) -> list[Write] | None:
    """Fold records of one partition into writes for a batch that overwrites.

    Handlers are pure, so whatever is unusual is left to `Folder`, which begins again and says what
    it is. A document is fed by this partition alone, as its key is that of its events.

    Returns:
        None if it cannot be done so.
    """
    routes = projection.routes
    if any(route.wants_view or not route.by_own_key for route in routes.values()):
        return None
    view_type, encode, decode = (
        projection.codec.view,
        projection.codec.encode,
        projection.codec.decode,
    )
    last: dict[str, tuple[Record, Any]] = {}
    position_text = Encoder().encode
    writes = []
    try:
        for record in records:
            route = routes.get(record.type)
            if route is None:
                continue
            view = route.handler(route.decode(record))
            if view is not None and not isinstance(view, view_type):
                return None
            last[record.key] = (record, view)
        for key, (record, view) in last.items():
            document = None
            if view is not None:
                document = encode(view)
                decode(document)  # msgspec checks types when it reads, not when a struct is made
            positions = f"{record.partition}:{position_text(record.position)}"
            writes.append(_new(Write, (key, "", positions, document)))
    except Exception:  # noqa: BLE001 - whatever it is, the other way finds it again and says it
        return None
    return writes
