"""How events become documents: pure functions, which know nothing of servers and can be tested without.

Where two streams meet in one document (a user's own events and those of the orders), readside keeps the order
of each stream, but not between them: an order may be known before its user. So each stream has fields of its own here,
whoever comes first makes the document, and it goes when nobody has anything left to say.
"""

from __future__ import annotations

from msgspec.structs import replace

import readside
from examples.shop.events import (
    Line,
    OrderCancelled,
    OrderPlaced,
    ProductListed,
    StockMoved,
    UserCreated,
    UserDeleted,
    UserRenamed,
)
from examples.shop.views import Order, OrderCount, Product, User

app = readside.App("shop")  # all else is settings: READSIDE_…

# The tables are how documents lie in PostgreSQL; other read stores take no notice.
users = app.projection("user", User, table=readside.Table(key="handle"))
products = app.projection(
    "product", Product, table=readside.Table(key="sku", constraints=("CHECK (stock >= 0)",))
)
orders = app.projection("order", Order, table=readside.Table(key="id", indexes=("handle",)))
order_counts = app.projection("order_count", OrderCount, table=readside.Table(key="handle"))


def total(lines: list[Line]) -> int:
    """What an order costs."""
    return sum(line.quantity * line.price for line in lines)


# Orders: one stream, one document each.


@orders.on
def order_placed(event: OrderPlaced) -> Order:
    """Show it."""
    return Order(event.id, event.handle, event.lines, total(event.lines))


@orders.on(OrderCancelled)
def order_cancelled(_: OrderCancelled) -> None:
    """Delete the document: None does that."""


# The number of a user's orders: a counter, fed by the stream of the orders, under another key.


@order_counts.on(key="handle")
def one_more(event: OrderPlaced, current: OrderCount | None) -> OrderCount:
    """Count it; exactly once, whatever is repeated on the way."""
    return OrderCount(event.handle, (current.orders if current else 0) + 1)


@order_counts.on(key="handle")
def one_less(event: OrderCancelled, current: OrderCount | None) -> OrderCount | None:
    """Count it back; there is no document for none."""
    left = (current.orders if current else 0) - 1
    return OrderCount(event.handle, left) if left else None


# Users: two streams in one document.


@users.on(UserCreated)
@users.on(UserRenamed)
def named(event: UserCreated | UserRenamed, user: User | None) -> User:
    """Take the name, whether or not an order was here before."""
    return replace(user or User(event.handle), name=event.name)


@users.on
def deleted(event: UserDeleted, user: User | None) -> User | None:
    """Forget the name; the document goes with the last order."""
    return _unless_empty(replace(user or User(event.handle), name=None))


@users.on(key="handle")
def spent(event: OrderPlaced, user: User | None) -> User | None:
    """Add what the order costs."""
    user = user or User(event.handle)
    return _unless_empty(replace(user, spent=user.spent + total(event.lines)))


@users.on(key="handle")
def refunded(event: OrderCancelled, user: User | None) -> User | None:
    """Take it off again."""
    user = user or User(event.handle)
    return _unless_empty(replace(user, spent=user.spent - total(event.lines)))


def _unless_empty(user: User) -> User | None:
    return user if user.name is not None or user.spent else None


# Products: a stream which a command on an order writes to as well, once for each product in it.


@products.on
def listed(event: ProductListed, product: Product | None) -> Product:
    """Take name and price; the stock stays as it is."""
    return Product(event.sku, event.name, event.price, product.stock if product else 0)


@products.on
def stock_moved(event: StockMoved, product: Product | None) -> Product | None:
    """Add to the stock, or take away; the product is here, for it was listed in the same stream."""
    return product and replace(product, stock=product.stock + event.by)
