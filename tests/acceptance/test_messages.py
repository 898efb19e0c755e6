"""Events as messages of the log, from the command to the view, and what is no event of ours."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

import readside
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.messages import admission, end_messages
from readside.adapters.postgres.names import Names
from readside.adapters.postgres.session import Session
from readside.core.errors import RefusedError, SettingsError
from readside.core.message import pack, prefix_of
from readside.operate.status import status
from readside.service import Service

EMIT = "SELECT pg_logical_emit_message(true, %s, %b::bytea)"


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


class World:
    """An app whose view is its whole history."""

    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.histories = app.projection(f"{app.name}-history", History)

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def write(self, *events: Counted) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*events)
        return readside.Token(tx.token.position, tuple(range(8)))

    async def emit(self, *contents: bytes, prefix: str = "") -> None:
        """As anybody may in this database."""
        async with self.app.transaction() as tx:
            for content in contents:
                await tx.execute(EMIT, prefix or prefix_of(self.app.name), content)

    async def numbers(self, key: str, token: readside.Token) -> list[int]:
        view = await self.histories.get(key, after=token, timeout=60)
        return view.numbers if view else []


@pytest.fixture
async def world(make_app: Any, broker_url: str) -> Any:
    world = World(make_app(broker_url, outbox="message"))
    await (await world.app.runtime()).install()
    yield world
    await world.app.close()


def content(key: str, number: int, **changes: Any) -> bytes:
    found = {
        "id": str(uuid4()),
        "type": "thing.counted",
        "key": key,
        "version": 1,
        "payload": msgspec.json.encode({"id": key, "number": number}),
        "headers": b"null",
    } | changes
    return pack(*found.values())


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


@pytest.mark.parametrize("first", ["table", "message"])
async def test_a_change_of_the_outbox_loses_and_repeats_nothing(
    make_app: Any, run: Any, broker_url: str, first: str
) -> None:
    """While the relay runs and restarts, with writers of both settings side by side."""
    names = ("table", "message") if first == "table" else ("message", "table")
    worlds = [World(make_app(broker_url, outbox=name, settle_delay=0.2)) for name in names]
    world = worlds[0]
    await (await world.app.runtime()).install()
    count = [0]

    async def more(*some: World, times: int = 30) -> readside.Token:
        for _ in range(times):
            for one in some:
                token = await one.write(Counted("a", count[0]), Counted("a", count[0] + 1))
                count[0] += 2
        return token

    async with run(world.app):
        await more(worlds[0])
        await (await worlds[1].app.runtime()).install()
        await more(*worlds)
    await more(*worlds)
    async with run(worlds[1].app):
        await more(worlds[1])
        await more(*worlds)
        token = await more(worlds[0])
        assert await worlds[1].numbers("a", token) == list(range(count[0]))
    for one in worlds:
        await one.app.close()


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


async def test_polling_is_refused(make_app: Any) -> None:
    with pytest.raises(SettingsError, match="polling cannot see them"):
        make_app(capture="polling", outbox="message")


async def test_what_is_not_installed_is_refused(make_app: Any, servers: Any) -> None:
    table = make_app()
    await (await table.runtime()).install()
    app = make_app(outbox="message")
    with pytest.raises(SettingsError, match="not installed for outbox=message"):
        async with app.transaction():
            pass
    with pytest.raises(SettingsError, match="not installed for outbox=message"):
        await Service(await app.runtime(), {}).run()
    async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
        with pytest.raises(psycopg.Error, match="not installed for outbox=message"):
            await app.record(connection, Counted("a", 1))
    await (await app.runtime()).install()
    async with app.transaction() as tx:
        tx.record(Counted("a", 1))
    for one in (app, table):
        await one.close()


async def test_a_change_to_polling_ends_the_messages(
    make_app: Any, run: Any, servers: Any, broker_url: str
) -> None:
    """What was written before comes; a late writer is refused."""
    world = World(make_app(broker_url, outbox="message", settle_delay=0.2))
    name, dsn = world.app.name, servers.write_store
    refused = pytest.raises(psycopg.Error, match="not installed for outbox=message")
    async with run(world.app):
        await world.write(Counted("a", 1))
        await world.write(Counted("a", 2))
        await install(dsn, name, 8, 1_000_000, "polling")
        polling = World(make_app(broker_url, capture="polling"))
        token = await polling.write(Counted("a", 3))
        assert await world.numbers("a", token) == [1, 2, 3]
        with refused:
            await world.write(Counted("a", 99))
        await _back(dsn, name)
        token = await world.write(Counted("a", 4))
        assert await world.numbers("a", token) == [1, 2, 3, 4]
    await world.app.close()
    await polling.app.close()


async def test_the_end_waits_for_those_who_have_written(world: World, servers: Any) -> None:
    dsn, names = servers.write_store, Names(world.app.name)
    await world.write(Counted("a", 0))
    async with (
        await psycopg.AsyncConnection.connect(dsn) as begun,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as ending,
    ):
        await world.app.record(begun, Counted("a", 1))
        end = asyncio.create_task(end_messages(ending, names))
        async with asyncio.timeout(60):
            while True:
                try:
                    await world.write(Counted("a", 2))
                except psycopg.Error as error:
                    assert "not installed for outbox=message" in str(error)  # noqa: PT017 - awaited
                    break
        assert not end.done()
        await begun.commit()
        await end


async def test_a_writer_with_an_older_snapshot_does_not_miss_the_end(
    world: World, servers: Any
) -> None:
    dsn, names = servers.write_store, Names(world.app.name)
    async with (
        await psycopg.AsyncConnection.connect(dsn) as older,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as ending,
    ):
        await older.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await older.execute("SELECT 1")
        await end_messages(ending, names)
        with pytest.raises(psycopg.errors.SerializationFailure):
            await world.app.record(older, Counted("a", 99))


async def _back(dsn: str, name: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await install(dsn, name, 8, 1_000_000, outbox="message")
            except RefusedError as error:
                assert "still under way" in str(error)  # noqa: PT017 - it is tried again
                await asyncio.sleep(0.05)
            else:
                return


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


def granted(role: str) -> list[str]:
    """What docs/operations.md grants to shop_app, without the table: the right to emit comes last."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    found = re.findall(r"^ +(GRANT [^;]* TO shop_app);", page, re.MULTILINE)
    ours = [one for one in found if "SCHEMA readside TO" in one or "readside." in one]
    assert len(ours) == 5
    return [one.replace("shop_app", role) for one in ours if "INSERT" not in one]


async def test_the_rights_that_the_page_names_are_enough_and_needed(
    world: World, make_app: Any, servers: Any
) -> None:
    role = f"{world.app.name}_app"
    dsn = servers.write_store.replace("//readside@", f"//{role}@")
    with psycopg.connect(servers.write_store, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            *most, emit = granted(role)
            for one in most:
                owner.execute(one.encode())
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await world.app.record(connection, Counted("a", 1))
            owner.execute(emit.encode())
            theirs = readside.App(
                world.app.name, write_store=dsn, broker=servers.broker,
                read_store=servers.read_store, outbox="message",
            )  # fmt: skip
            async with theirs.transaction() as tx:
                tx.record(Counted("a", 1))
            assert tx.token.partitions
            await theirs.close()
        finally:
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())


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
