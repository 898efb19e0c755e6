"""``python -m examples.shop``: a short day in the shop, with everything that it needs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.shop import app, order_counts, orders, products, users
from examples.shop.commands import (
    OutOfStockError,
    cancel_order,
    create_tables,
    create_user,
    delete_user,
    list_product,
    place_order,
    rename_user,
    restock,
)

_PATIENCE = 60.0


@asynccontextmanager
async def service() -> AsyncIterator[None]:
    """What brings events to read models; elsewhere a process under your supervisor."""
    run = ("-m", "readside", "run", "examples.shop:app")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *run, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def day() -> None:
    """Write, and read what was written: `after` is all that it takes."""
    await list_product("tea", "Green tea", 450)
    await list_product("cup", "Cup", 900)
    await restock("tea", 10)
    await restock("cup", 1)
    token = await create_user("ada", "Ada")
    # The first reader waits until the service has started; later ones need milliseconds.
    print("signed up      ", await users.get("ada", after=token, timeout=_PATIENCE))
    id_, token = await place_order("ada", {"tea": 2, "cup": 1})
    print("an order       ", await orders.get(id_, after=token))
    print("of how many    ", await order_counts.get("ada", after=token))
    print("and her        ", await users.get("ada", after=token))
    print("left           ", await products.get_many(["tea", "cup"], after=token))
    try:
        await place_order("ada", {"tea": 1, "cup": 1})
    except OutOfStockError as error:
        print("nothing, for   ", error)
    token = await rename_user("ada", "Ada Lovelace")
    print("renamed        ", await users.get("ada", after=token))
    token = await cancel_order(id_)
    print("cancelled      ", await orders.get(id_, after=token))
    await place_order("ada", {"tea": 1})
    token = await delete_user("ada")
    print("she has left   ", await users.get("ada", after=token))
    print("without a trace", await order_counts.get("ada", after=token))
    print("all is back    ", await products.get_many(["tea", "cup"], after=token))


async def main() -> None:
    """Run it on servers of its own, or on those that READSIDE_… name."""
    async with app:
        await create_tables()
        async with service():
            await day()


if __name__ == "__main__":
    asyncio.run(main())
