"""Shows the way of one user: row, event, message, document; each from the server itself."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg

from readside.apps.demo.documents import documents
from readside.apps.demo.shop import Shop

Steps = list[tuple[str, str]]


async def follow(shop: Shop, write_store: str, broker: str, read_store: str) -> Steps:
    """Create one user and look at each station of its way."""
    listening = await _listen(broker) if broker.startswith("nats") else None
    id_, token = await shop.create_user("Ada Lovelace", "ada@example.org")
    await shop.users.get(id_, after=token, timeout=15)
    steps = await _written(write_store, id_)
    if listening is not None:
        client, message = listening
        try:
            heard = await asyncio.wait_for(message, 15)
        finally:
            await client.close()
        headers = "\n".join(f"{name}: {value}" for name, value in (heard.headers or {}).items())
        steps.append(
            (
                f"message on NATS, subject {heard.subject}, headers and payload",
                f"{headers}\n{heard.data.decode()}",
            )
        )
    async with documents(read_store) as found:
        (document,) = await found.find([id_])
        text = msgspec.json.encode(document).decode()
        steps.append((f"document in {found.name}, {found.question(id_)}", text))
    steps.append(("token of the write, for reading it", str(token)))
    return steps


async def _written(write_store: str, id_: int) -> Steps:
    connection = await psycopg.AsyncConnection.connect(write_store)
    async with connection:
        row = await (
            await connection.execute("SELECT * FROM users WHERE id = %s", [id_])
        ).fetchone()
        event = await (
            await connection.execute(
                "SELECT type, aggregateid, payload::text FROM readside.outbox"
                " WHERE app = 'shop' AND aggregateid = %s AND type = 'user.created'",
                [str(id_)],
            )
        ).fetchone()
    return [
        ("row in PostgreSQL, table users", str(row)),
        ("event in the same transaction, readside.outbox", "  ".join(event or ())),
    ]


async def _listen(broker: str) -> tuple[Any, asyncio.Future[Any]]:
    """A plain subscriber, as any other service would be one."""
    import nats  # noqa: PLC0415 - an extra

    client = await nats.connect(broker)
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def on_message(message: Any) -> None:
        if not heard.done():
            heard.set_result(message)

    await client.subscribe("*.*.user.created", cb=on_message)
    await client.flush()
    return client, heard
