"""Events as messages of the log, from the command to the view."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg
import pytest
from tests.acceptance import histories
from tests.acceptance.histories import Counted, History, World

import readside
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.messages import admission
from readside.adapters.postgres.session import Session
from readside.operate.status import status

world = histories.world


async def test_what_is_written_is_read_and_no_table_grows(world: World, run: Any) -> None:
    async with run(world.app):
        token = await world.write(Counted("a", 1), Counted("b", 1))
        token = await world.write(Counted("a", 2))
        assert await world.numbers("a", token) == [1, 2]
        assert await world.numbers("b", token) == [1]
    async with world.app.transaction() as tx:
        found = await tx.fetchall("SELECT FROM readside.outbox WHERE app = %s", world.app.name)
    assert found == []


async def test_relay_and_projector_restart_in_the_middle(
    make_app: Any, run: Any, servers: Any
) -> None:
    world = World(make_app(servers.broker, outbox="message"))
    await (await world.app.runtime()).install()
    written: list[readside.Token] = []

    async def restarts(role: str) -> None:
        for _ in range(3):
            async with run(world.app, role):
                before = len(written)
                while len(written) < before + 50:
                    await asyncio.sleep(0.01)

    services = [asyncio.create_task(restarts(role)) for role in ("relay", "projector")]
    while not all(service.done() for service in services):
        written.append(await world.write(Counted(str(len(written) % 7), len(written))))
    await asyncio.gather(*services)
    async with run(world.app):
        for key in range(7):
            found = await world.numbers(str(key), written[-1])
            assert found == list(range(key, len(written), 7))
    await world.app.close()


async def test_the_relay_s_connection_is_cut_again_and_again(world: World, run: Any) -> None:
    async with run(world.app):
        for number in range(300):
            token = await world.write(Counted("a", number))
            if number % 60 == 30:
                async with world.app.transaction() as tx:
                    await tx.execute(
                        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                        " WHERE slot_name = %s AND active",
                        f"readside_{world.app.name}",
                    )
        assert await world.numbers("a", token) == list(range(300))


async def test_a_large_transaction_of_both_kinds(world: World, run: Any) -> None:
    """Rows from `readside.record`, and messages, by turns in one transaction."""
    async with run(world.app):
        async with world.app.transaction() as tx:
            for number in range(0, 10_000, 100):
                tx.record(*(Counted("a", n) for n in range(number, number + 99)))
                await tx.flush()
                await tx.execute(
                    "SELECT readside.record(%s, 'thing.counted', 'a', %s::json)",
                    world.app.name,
                    msgspec.json.encode({"id": "a", "number": number + 99}).decode(),
                )
        token = readside.Token(tx.token.position, tuple(range(8)))
        assert await world.numbers("a", token) == list(range(10_000))


async def test_what_no_relay_has_read_is_not_called_in_step(
    world: World, run: Any, servers: Any
) -> None:
    async with run(world.app):
        token = await world.write(Counted("a", 1))
        assert await world.numbers("a", token) == [1]
    await world.write(Counted("a", 2))
    before = await status(servers.write_store, world.app.name)
    assert before.relay.unread_seconds > 0
    async with asyncio.timeout(60):
        while True:
            seen = await status(servers.write_store, world.app.name)
            (projection,) = seen.projections
            if projection.lag_seconds and projection.lag_seconds > before.relay.unread_seconds:
                break


async def test_another_language_records_by_a_function(world: World, run: Any) -> None:
    record = "SELECT readside.record_message(%s, %s, %s, %s::json, %s, %s::json) AS id"
    name = world.app.name
    good = (name, "thing.counted", "ключ", '{ "id": "ключ", "number": 1 }', 1, '{"x": "y"}')
    async with run(world.app):
        async with world.app.transaction() as tx:
            assert (await tx.fetchone(record, *good)).id
        for place, value in (
            (1, "Bad Type"), (2, ""), (2, "a\nb"), (2, "x" * 513), (3, f'"{"x" * 1_000_000}"'),
            (3, None), (4, 0), (5, "[]"), (0, "nobody"),
        ):  # fmt: skip
            bad = (*good[:place], value, *good[place + 1 :])
            with pytest.raises(psycopg.Error, match=r"cannot travel|not installed"):
                async with world.app.transaction() as tx:
                    await tx.execute(record, *bad)
        token = await world.write(Counted("ключ", 2))
        assert await world.numbers("ключ", token) == [1, 2]


async def test_an_inline_view_is_folded_beside_the_message(make_app: Any, run: Any) -> None:
    app = make_app(outbox="message")
    inline = app.projection("history", History, mode="inline")
    world = World(app)

    @inline.on
    def counted(event: Counted, history: History | None) -> History:
        if event.number == 13:
            raise ZeroDivisionError("unlucky")
        return History([*(history.numbers if history else []), event.number])

    async with run(app):
        token = await world.write(Counted("a", 1), Counted("a", 2))
        assert await inline.get("a") == History([1, 2])
        with pytest.raises(readside.HandlerError):
            await world.write(Counted("a", 13))
        token = await world.write(Counted("a", 3))
        assert await inline.get("a") == History([1, 2, 3])
        assert await world.numbers("a", token) == [1, 2, 3]
    await app.close()


async def test_a_history_that_begins_again_takes_the_messages_along(
    world: World, servers: Any
) -> None:
    """Also in a cluster whose log is shorter than that of the one before."""
    await world.write(Counted("a", 1))
    runtime = await world.app.runtime()
    before = (await runtime.capture()).epoch
    with psycopg.connect(servers.write_store, autocommit=True) as owner:
        name = world.app.name
        owner.execute(
            "UPDATE readside.messages SET from_lsn = 1::bigint << 60 WHERE app = %s", [name]
        )
        owner.execute("SELECT pg_drop_replication_slot(%s)", [f"readside_{name}"])
    session = Session(servers.write_store, "test")
    capture = await PostgresLedger(session, name).capture(name)
    await session.close()
    assert capture.epoch > before
    assert (await admission(servers.write_store, name)).from_lsn <= capture.origin.lsn
