"""Folding where handlers take the event alone: what a document was before does not matter.

Most projections of most apps are of that kind, and most batches hold nothing unusual. Then nothing
has to be loaded: the store itself sees that each document is older than what it becomes, in the
one round trip that writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from readside.core.errors import ENDINGS
from readside.core.folding import Write
from readside.core.position import Encoder, Position
from readside.core.projection import Projection
from readside.core.record import Record

_new = tuple.__new__


def overwritten(projection: Projection[Any], records: Sequence[Record]) -> list[Write] | None:
    """Fold records of one partition into writes for a batch that overwrites.

    Handlers are pure, so whatever is unusual is left to `Folder`, which begins again and says what
    it is. A document is fed by this partition alone, as its key is that of its events.

    The hot path of a projector: records are taken apart at once, as each attribute of a tuple costs
    as much as three names, and nothing is called in between but C and the handler.

    Returns:
        None if it cannot be done so.
    """
    routes = projection.routes
    if any(route.wants_view or not route.by_own_key for route in routes.values()):
        return None
    codec = projection.codec
    view_type, encode, read = codec.view, codec.encode, codec.read
    quick = {type_: (route.version, route.read, route.handler) for type_, route in routes.items()}
    last: dict[str, tuple[Position, Any]] = {}
    writes = []
    try:
        for record in records:
            _, position, _, _, _, type_, key, version, payload, _, _, _, _ = record
            if type_ not in quick:
                continue
            current, read_event, handler = quick[type_]
            event = read_event(payload) if version == current else routes[type_].decode(record)
            view = handler(event)
            if view is not None and not isinstance(view, view_type):
                return None
            last[key] = (position, view)
        position_text = Encoder(f"{records[0].partition}:" if records else "").encode
        for key, (position, view) in last.items():
            document = None
            if view is not None:
                document = encode(view)
                read(document)  # msgspec checks types when it reads, not when a struct is made
            writes.append(_new(Write, (key, "", position_text(position), document)))
    except ENDINGS:
        raise
    except BaseException:  # noqa: BLE001 - whatever it is, the other way finds it again and says it
        return None
    return writes
