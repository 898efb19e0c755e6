"""Messages of the log which are no event of ours, or none that anybody can read."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
from tests.acceptance import histories
from tests.acceptance.histories import EMIT, Counted, World, content

import readside
from readside.adapters.postgres.installation import install
from readside.core.message import prefix_of

world = histories.world


async def test_other_messages_of_the_database_mean_nothing(
    world: World, run: Any, caplog: Any
) -> None:
    async with run(world.app):
        for prefix in ("x", "readside", "readside:event:", prefix_of(world.app.name) + "2", "ключ"):
            await world.emit(content("a", 99), b"\0\xff", prefix=prefix)
        token = await world.write(Counted("a", 1))
        assert await world.numbers("a", token) == [1]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


BROKEN = {
    "nothing": b"",
    "bytes": b"\0\xff\xfe",
    "text": b"hello",
    "another-form": b'{"id": 1}',
    "too-deep": b"[" * 100_000,
    "a-part": content("a", 99)[:-9],
    "id": content("a", 99, id="7"),
    "type": content("a", 99, type="Bad Type\r\n"),
    "key": content("", 99),
    "a-key-in-lines": content("a\r\nb", 99),
    "a-long-key": content("ä" * 300, 99),
    "version": content("a", 99, version=0),
    "no-json": content("a", 99, payload=b"{{"),
    "headers": content("a", 99, headers=b"[1]"),
    "large-headers": content("a", 99, headers=b'{"x":"%s"}' % (b"x" * 5000)),
}


@pytest.mark.parametrize("junk", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_event_is_passed_over_and_said(
    world: World, run: Any, caplog: Any, junk: bytes
) -> None:
    async with run(world.app):
        token = await world.write(Counted("a", 1))
        await world.emit(junk)
        async with world.app.transaction() as tx:
            tx.record(Counted("a", 2))
            await tx.flush()
            await tx.execute(EMIT, prefix_of(world.app.name), junk)
            tx.record(Counted("a", 3))
        token = readside.Token(tx.token.position, tuple(range(8)))
        assert await world.numbers("a", token) == [1, 2, 3]
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert any("messages in the log look like events" in text for text in said)
    async with run(world.app):  # which reads it again
        token = await world.write(Counted("a", 4))
        assert await world.numbers("a", token) == [1, 2, 3, 4]


async def test_a_message_of_no_transaction_is_no_event(world: World, run: Any, caplog: Any) -> None:
    async with run(world.app):
        with pytest.raises(ZeroDivisionError):
            async with world.app.transaction() as tx:
                await tx.execute(
                    "SELECT pg_logical_emit_message(false, %s, %b::bytea)",
                    prefix_of(world.app.name),
                    content("a", 99),
                )
                _ = 1 / 0
        token = await world.write(Counted("a", 1))
        assert await world.numbers("a", token) == [1]
    assert "it is not of a transaction" in caplog.text


@pytest.mark.parametrize(
    "payload",
    [b"[1]", b'{"id":"a"}', b'"\xff"', b'{"x":"%s"}' % (b"x" * 1_000_001)],
    ids=["no-object", "a-field-lacks", "no-utf-8", "over-size"],
)
async def test_an_event_that_nobody_can_read_parks_its_document(
    world: World, run: Any, payload: bytes
) -> None:
    async with run(world.app):
        await world.write(Counted("a", 1), Counted("b", 1))
        await world.emit(content("a", 0, payload=payload))
        token = await world.write(Counted("a", 2), Counted("b", 2))
        assert await world.numbers("b", token) == [1, 2]
        with pytest.raises(readside.ParkedError):
            await world.numbers("a", token)
    async with world.app.transaction() as tx:
        row = await tx.fetchone(
            "SELECT d.key, convert_from(e.payload, 'LATIN1') AS payload"
            " FROM readside.parked_documents d JOIN readside.parked_events e"
            " USING (app, projection, partition, key) WHERE app = %s ORDER BY position LIMIT 1",
            world.app.name,
        )
    assert row.key == "a"
    if len(payload) > 1_000_000:
        assert f"{len(payload)} bytes was left out, 1000000 are allowed" in row.payload


async def test_a_larger_limit_counts_at_once(world: World, run: Any, servers: Any) -> None:
    """The relay asks again before it believes that a payload is too large."""
    async with run(world.app):
        name = world.app.name
        await install(servers.write_store, name, 8, 100, outbox="message")
        token = await world.write(Counted("a", 1))
        assert await world.numbers("a", token) == [1]
        await install(servers.write_store, name, 8, 1_000_000, outbox="message")
        large = msgspec.json.encode({"id": "a", "number": 2, "more": "x" * 900_000})
        await world.emit(content("a", 0, payload=large))
        token = await world.write(Counted("a", 3))
        assert await world.numbers("a", token) == [1, 2, 3]


async def test_messages_of_an_app_with_a_table_are_no_events(
    make_app: Any, run: Any, broker_url: str, caplog: Any
) -> None:
    """Whoever may not write into the table cannot forge an event, not even for later."""
    world = World(make_app(broker_url))
    async with run(world.app):
        await world.emit(content("a", 99))
        token = await world.write(Counted("a", 1))
        assert await world.numbers("a", token) == [1]
        assert "messages were not the app's outbox then" in caplog.text
        await (await World(make_app(outbox="message")).app.runtime()).install()
        await world.emit(content("a", 2))
        token = await world.write(Counted("a", 3))
        assert await world.numbers("a", token) == [1, 2, 3]
    async with run(world.app):  # reads everything again
        token = await world.write(Counted("a", 4))
        assert await world.numbers("a", token) == [1, 2, 3, 4]
    await world.app.close()
