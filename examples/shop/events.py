"""What happens in the shop. The key says to whom; what happens to one key stays in order."""

from __future__ import annotations

import msgspec

import readside


class Line(msgspec.Struct, frozen=True):
    """So many of one product, at the price of that moment."""

    sku: str
    quantity: int
    price: int


class UserCreated(readside.Event, key="handle"):
    """Somebody signed up, perhaps under the handle of somebody who has left."""

    handle: str
    name: str


class UserRenamed(readside.Event, key="handle"):
    """A user has another name."""

    handle: str
    name: str


class UserDeleted(readside.Event, key="handle"):
    """A user has left; the orders were cancelled with that."""

    handle: str


class ProductListed(readside.Event, key="sku"):
    """A product is new, or has another name or price."""

    sku: str
    name: str
    price: int


class StockMoved(readside.Event, key="sku"):
    """There is more of a product, or less."""

    sku: str
    by: int


class OrderPlaced(readside.Event, key="id"):
    """A user has bought something."""

    id: int
    handle: str
    lines: list[Line]


class OrderCancelled(readside.Event, key="id"):
    """An order is taken back; it says again what was in it, for a handler sees the event only."""

    id: int
    handle: str
    lines: list[Line]
