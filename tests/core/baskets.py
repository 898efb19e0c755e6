"""A small world of documents, to be fed with arbitrary histories."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from readside.core.event import Event, encode
from readside.core.folding import Folder, Stored
from readside.core.position import BEGINNING, Position
from readside.core.projection import Projection
from readside.core.record import Record
from readside.core.view import View

NOTHING = Stored(None, "")


class Added(Event, key="id"):
    id: str
    item: str
    also: tuple[str, ...] = ()


class Emptied(Event, key="id"):
    id: str


class Broke(Event, key="id"):
    id: str


class Spoiled(Event, key="id"):
    """Makes a view which is no JSON."""

    id: str


class Basket(View):
    items: tuple[Any, ...] = ()


baskets = Projection("basket", Basket)


@baskets.on(Added, key=lambda event: [event.id, *event.also])
def added(event: Added, basket: Basket | None) -> Basket:
    return Basket((*(basket.items if basket else ()), event.item))


@baskets.on(Emptied)
def emptied(event: Emptied) -> None:
    return None


@baskets.on(Broke)
def broke(event: Broke) -> Basket:
    raise RuntimeError(event.id)


@baskets.on(Spoiled)
def spoiled(event: Spoiled, basket: Basket | None) -> Basket:
    return Basket((*(basket.items if basket else ()), object()))


FOLDER = Folder(baskets)


def record_of(event: Event, lsn: int, partition: int = 0) -> Record:
    return Record(
        partition=partition,
        position=Position(1, lsn, 1),
        predecessor=BEGINNING,
        nth=lsn,
        id=str(lsn),
        type=event.__event_type__,
        key=event.id,  # type: ignore[attr-defined]
        version=1,
        payload=encode(event),
        recorded_at=0,
    )


class World:
    """A store that compares and sets, and the documents that are parked, as the projector keeps them."""

    def __init__(self) -> None:
        self.documents: dict[str, Stored] = {}
        self.parked: dict[str, list[str]] = {}

    def apply(self, records: list[Record]):
        steps = FOLDER.route(records)
        free = [step for step in steps if step.key not in self.parked]
        waiting = [step for step in steps if step.key in self.parked]
        folded = FOLDER.fold(free, {step.key: self.load(step.key) for step in free})
        assert len({write.key for write in folded.writes}) == len(folded.writes)
        for write in folded.writes:
            assert write.expected == self.load(write.key).positions
            self.documents[write.key] = Stored(write.document, write.positions)
        away = [*(poison.step for poison in folded.poisons), *folded.held, *waiting]
        for step in sorted(away, key=lambda step: step.record.position):
            self.parked.setdefault(step.key, []).append(step.record.id)
        assert folded.applied + folded.skipped + len(folded.poisons) + len(folded.held) == len(free)
        return folded

    def load(self, key: str) -> Stored:
        return self.documents.get(key, NOTHING)

    def items(self, key: str) -> tuple[Any, ...] | None:
        document = self.load(key).document
        return None if document is None else baskets.codec.decode(document).items


KEY = st.sampled_from("abc")
ADDED = st.builds(Added, KEY, st.text("xyz", max_size=2), st.lists(KEY, max_size=2).map(tuple))
SOUND = st.one_of(ADDED, st.builds(Emptied, KEY))


def history_of(events, partitions=1, draw=None):
    return [
        record_of(event, lsn, 0 if partitions == 1 else draw(st.integers(0, partitions - 1)))
        for lsn, event in enumerate(events, 1)
    ]


def in_one(history):
    world = World()
    world.apply(history)
    return world
