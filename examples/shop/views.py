"""What the shop shows: the documents of the read models, each as somebody wants to read it."""

from __future__ import annotations

import readside
from examples.shop.events import Line


class User(readside.View):
    """A customer: the name is said by the users' events, the sum by those of orders."""

    handle: str
    #: None: there is no such user, but an order is known already, or still.
    name: str | None = None
    #: What the orders cost.
    spent: int = 0


class Product(readside.View):
    """A product with what is left of it."""

    sku: str
    name: str
    price: int
    stock: int = 0


class Order(readside.View):
    """An order that stands."""

    id: int
    handle: str
    lines: list[Line]
    total: int


class OrderCount(readside.View):
    """How many orders of a user stand."""

    handle: str
    orders: int
