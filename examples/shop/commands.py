"""What can be done in the shop: each command is one transaction, in which rows change and events are recorded.

A command that raises has done nothing, neither to rows nor to read models. Each returns the token with which a reader
sees what it did. Rows are locked in one order: user, order, products by sku.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

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
from examples.shop.projections import app
from readside.write.transaction import Transaction

_TABLES = Path(__file__).with_name("tables.sql")


class NotThereError(LookupError):
    """There is no such user, product or order."""


class OutOfStockError(Exception):
    """There is not enough of a product; nothing was ordered."""


async def create_tables() -> None:
    """Make the shop's own tables, where they are not there."""
    async with app.transaction() as tx:
        await tx.execute(_TABLES.read_text(encoding="utf-8"))


async def create_user(handle: str, name: str) -> readside.Token:
    """Sign up; a handle is free again when its user has left."""
    async with app.transaction() as tx:
        await tx.execute("INSERT INTO users (handle, name) VALUES (%s, %s)", handle, name)
        tx.record(UserCreated(handle, name))
    return tx.token


async def rename_user(handle: str, name: str) -> readside.Token:
    """Give a user another name."""
    async with app.transaction() as tx:
        await _one(
            tx, "UPDATE users SET name = %s WHERE handle = %s RETURNING handle", name, handle
        )
        tx.record(UserRenamed(handle, name))
    return tx.token


async def delete_user(handle: str) -> readside.Token:
    """Leave: what was ordered goes back to the shelves."""
    async with app.transaction() as tx:
        await _one(tx, "SELECT name FROM users WHERE handle = %s FOR UPDATE", handle)
        rows = await tx.fetchall("DELETE FROM orders WHERE handle = %s RETURNING id, lines", handle)
        orders = {row.id: _lines(row.lines) for row in rows}
        await _put_back(tx, [line for lines in orders.values() for line in lines])
        await tx.execute("DELETE FROM users WHERE handle = %s", handle)
        tx.record(*(OrderCancelled(id_, handle, lines) for id_, lines in orders.items()))
        tx.record(UserDeleted(handle))
    return tx.token


async def list_product(sku: str, name: str, price: int) -> readside.Token:
    """Offer a product, or change its name and price."""
    async with app.transaction() as tx:
        await tx.execute(
            "INSERT INTO products (sku, name, price) VALUES (%s, %s, %s)"
            " ON CONFLICT (sku) DO UPDATE SET name = excluded.name, price = excluded.price",
            sku, name, price,
        )  # fmt: skip
        tx.record(ProductListed(sku, name, price))
    return tx.token


async def restock(sku: str, quantity: int) -> readside.Token:
    """Put more of a product on the shelf."""
    async with app.transaction() as tx:
        await _move(tx, sku, quantity)
    return tx.token


async def place_order(handle: str, basket: Mapping[str, int]) -> tuple[int, readside.Token]:
    """Buy so many of each product, or nothing if anything is missing."""
    async with app.transaction() as tx:
        await _one(tx, "SELECT name FROM users WHERE handle = %s FOR KEY SHARE", handle)
        lines = [
            Line(sku, quantity, await _move(tx, sku, -quantity))
            for sku, quantity in sorted(basket.items())
        ]
        row = await tx.fetchone(
            "INSERT INTO orders (handle, lines) VALUES (%s, %s) RETURNING id",
            handle, msgspec.json.encode(lines).decode(),
        )  # fmt: skip
        tx.record(OrderPlaced(row.id, handle, lines))
    return row.id, tx.token


async def cancel_order(id_: int) -> readside.Token:
    """Take an order back."""
    async with app.transaction() as tx:
        row = await _one(tx, "DELETE FROM orders WHERE id = %s RETURNING handle, lines", id_)
        lines = _lines(row.lines)
        await _put_back(tx, lines)
        tx.record(OrderCancelled(id_, row.handle, lines))
    return tx.token


async def _put_back(tx: Transaction, lines: Iterable[Line]) -> None:
    for line in sorted(lines, key=lambda line: line.sku):
        await _move(tx, line.sku, line.quantity)


async def _move(tx: Transaction, sku: str, by: int) -> int:
    """Change the stock of a product, and tell it; returns the price."""
    row = await _one(tx, "SELECT price, stock FROM products WHERE sku = %s FOR NO KEY UPDATE", sku)
    if row.stock + by < 0:
        raise OutOfStockError(f"{row.stock} of {sku} are left, not {-by}")
    await tx.execute("UPDATE products SET stock = stock + %s WHERE sku = %s", by, sku)
    tx.record(StockMoved(sku, by))
    return int(row.price)


async def _one(tx: Transaction, query: str, *values: object) -> Any:
    row = await tx.fetchone(query, *values)
    if row is None:
        raise NotThereError(*values)
    return row


def _lines(found: object) -> list[Line]:
    return msgspec.convert(found, list[Line])
