"""Projections which are part of the command's transaction."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.acceptance import accounts
from tests.acceptance.accounts import Account, Closed, Opened, Paid, Seen, World

import readside
from readside.operate.status import status

world = accounts.world


async def test_it_is_there_with_the_commit_and_its_twin_a_moment_later(
    world: World, run: Any
) -> None:
    async with run(world.app):
        token = await world.write(Opened(1, "Ada"), Paid(1, 5), Opened(2, "Grace"))
        await world.later.get(1, after=token)  # its twin has no order between keys
        token = await world.write(Paid(1, 3, [2]))
        expected = [Account(1, "Ada", 8), Account(2, "Grace", 3), None]
        assert await world.inline.get_many([1, 2, 3], after=token, timeout=0) == expected
        assert await world.later.get_many([1, 2, 3], after=token) == expected
        token = await world.write(Closed(1), Paid(3, 1))
        assert await world.inline.get_many([1, 3], after=str(token)) == [None, None]
        assert await world.later.get_many([1, 3], after=token) == [None, None]
        token = await world.write(Opened(1, "Ada again"))
        assert await world.inline.get(1) == await world.later.get(1, after=token)
    assert await world.ask(f"SELECT * FROM {world.app.name}.account ORDER BY id") == [
        (1, "Ada again", 0),
        (2, "Grace", 3),
    ]


async def test_nobody_sees_it_before_the_commit_and_a_rollback_leaves_nothing(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.app.transaction() as tx:
            tx.record(Opened(1, "nobody"))
            _ = 1 / 0
    assert await world.inline.get(1) is None
    connection = await psycopg.AsyncConnection.connect(world.app.settings.write_store)
    async with connection:
        await world.app.record(connection, Opened(1, "Ada"))
        assert await world.inline.get(1) is None
        await connection.rollback()
        assert await world.inline.get(1) is None
        await world.app.record(connection, Opened(1, "Ada"))
        await connection.commit()
    assert await world.inline.get(1) == Account(1, "Ada")


async def test_a_handler_that_fails_fails_the_command(world: World) -> None:
    await world.write(Opened(1, "Ada"))
    with pytest.raises(
        readside.HandlerError, match="paid of projection 'account' raised ZeroDivision"
    ):
        await world.write(Paid(1, 1), Paid(1, 13))
    assert await world.inline.get(1) == Account(1, "Ada")
    assert await world.ask(f"SELECT 1 FROM readside.outbox_{world.app.name}") == [(1,)]
    with pytest.raises(psycopg.errors.CheckViolation):
        await world.write(Paid(1, -101))
    await world.write(Paid(1, 7))
    assert await world.inline.get(1) == Account(1, "Ada", 7)


async def test_every_kind_of_connection(world: World) -> None:
    dsn = world.app.settings.write_store
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        world.app.record(connection, Opened(1, "Ada"))
        world.app.record(connection, Paid(1, 2))
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(readside.DeclarationError, match="open a transaction"):
            world.app.record(connection, Paid(1, 2))
        with connection.transaction():
            world.app.record(connection, Paid(1, 2))
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        with pytest.raises(readside.DeclarationError, match="open a transaction"):
            await world.app.record(connection, Paid(1, 2))
        async with connection.transaction():
            await world.app.record(connection, Paid(1, 2))
    assert await world.inline.get(1) == Account(1, "Ada", 6)


async def test_concurrent_transactions_on_the_same_documents_follow_each_other(
    world: World,
) -> None:
    """All touch the same documents, in all orders, also such that are not there yet."""
    keys, writers = list(range(6)), 8

    async def write(number: int) -> None:
        others = keys[number % 6 :] + keys[: number % 6]
        first, *rest = others if number % 2 else others[::-1]
        await world.write(Paid(first, 1, rest))

    async def open_all(number: int) -> None:
        await world.write(*(Opened(key, f"{number}") for key in (keys, keys[::-1])[number % 2]))

    await asyncio.gather(*(open_all(number) for number in range(writers)))
    assert len({one.owner for one in await world.inline.get_many(keys) if one}) == 1
    for start in range(0, 240, writers):
        await asyncio.gather(*(write(start + number) for number in range(writers)))
    assert [one and one.balance for one in await world.inline.get_many(keys)] == [240] * 6


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_transaction_that_sees_an_old_moment_fails_instead_of_losing_an_event(
    world: World, level: str
) -> None:
    dsn = world.app.settings.write_store
    await world.write(Closed(1))
    for first, second in (
        (Opened(1, "Ada"), Closed(1)),
        (Closed(1), Paid(1, 1)),
        (Opened(1, "B"), Paid(1, 1)),
    ):
        with psycopg.connect(dsn) as connection:
            connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
            connection.execute("SELECT 1")  # takes the snapshot
            await world.write(first)
            before = await world.inline.get(1)
            with pytest.raises(psycopg.errors.SerializationFailure):
                world.app.record(connection, second)
            connection.rollback()
        assert await world.inline.get(1) == before


async def test_it_holds_nothing_back_and_status_shows_it(
    make_app: Any, servers: Any, run: Any
) -> None:
    app = make_app(servers.broker)
    only = app.projection("seen", Seen, mode="inline")

    @only.on
    def opened(event: Opened, seen: Seen | None) -> Seen:
        return Seen([*(seen.events if seen else []), event.id])

    async with run(app):
        async with app.transaction() as tx:
            tx.record(Opened(1, "x"))
        seen = await status(app.settings.write_store, app.name)
        assert [(one.name, one.state, one.lag_events) for one in seen.projections] == [
            ("seen", "inline", 0)
        ]
        query = "SELECT confirmed_lsn > %s FROM readside.capture WHERE app = %s"
        with psycopg.connect(servers.write_store, autocommit=True) as connection:
            while connection.execute(query, [tx.token.position.lsn, app.name]).fetchone() != (
                True,
            ):
                connection.execute("SELECT pg_logical_emit_message(true, 'readside test', 'on')")
                await asyncio.sleep(0.05)
        assert (await status(app.settings.write_store, app.name)).healthy
        assert await only.get(1) == Seen([1])
    await app.close()


async def recorded(world: World) -> int:
    return len(await world.ask(f"SELECT 1 FROM readside.outbox_{world.app.name}"))


async def test_many_events_can_be_written_before_the_commit(world: World) -> None:
    async with world.app.transaction() as tx:
        tx.record(Opened(1, "Ada"), Paid(1, 1))
        await tx.flush()
        await tx.flush()
        tx.record(Paid(1, 2))
        async with tx.connection.pipeline():
            await tx.execute("SELECT 1")
            tx.record(Paid(1, 4))
            with pytest.raises(RuntimeError, match="inside a pipeline"):
                await tx.flush()
        await tx.flush()
        tx.record(Paid(1, 8))
    assert await world.inline.get(1, after=tx.token) == Account(1, "Ada", 15)
    assert await recorded(world) == 5


async def test_after_a_flush_that_failed_nothing_can_be_committed(world: World) -> None:
    await world.write(Opened(1, "Ada"))
    from readside.write.transaction import NotCommittedError

    with pytest.raises(NotCommittedError):
        async with world.app.transaction() as tx:
            tx.record(Paid(1, 5), Paid(1, 13))
            with pytest.raises(readside.HandlerError):
                await tx.flush()
            with pytest.raises(psycopg.OperationalError):
                await tx.execute("SELECT 1")
    assert await world.inline.get(1) == Account(1, "Ada")
    assert await recorded(world) == 1
    await world.write(Paid(1, 5))


async def test_a_commit_inside_the_block_is_noticed(world: World) -> None:
    from readside.write.transaction import NotCommittedError

    with pytest.raises(NotCommittedError, match="ended inside the block"):
        async with world.app.transaction() as tx:
            tx.record(Opened(1, "Ada"))
            await tx.execute("ROLLBACK")
    assert await recorded(world) == 0


async def test_a_part_that_fails_alone_takes_its_events_with_it(world: World) -> None:
    async with world.app.transaction() as tx:
        tx.record(Opened(1, "Ada"))
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                tx.record(Opened(2, "nobody"))
                _ = 1 / 0
        async with tx.savepoint():
            tx.record(Opened(3, "Grace"))
            with pytest.raises(RuntimeError, match="savepoint"):
                await tx.flush()
    found = await world.inline.get_many([1, 2, 3])
    assert found == [Account(1, "Ada"), None, Account(3, "Grace")]
    assert await recorded(world) == 2


async def test_what_record_refuses_leaves_nothing_behind(world: World) -> None:
    dsn = world.app.settings.write_store
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        pytest.raises(readside.DeclarationError),
    ):
        world.app.record(connection, Opened(1, "nobody"))
    await world.write(Opened(1, "Ada"))
    with psycopg.connect(dsn) as connection:
        world.app.record(connection, Paid(1, 1))
        with pytest.raises(readside.HandlerError):
            world.app.record(connection, Paid(1, 2), Paid(1, 13))
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await world.app.record(connection, Paid(1, 1))
        with pytest.raises(readside.HandlerError):
            await world.app.record(connection, Paid(1, 2), Paid(1, 13))
        with pytest.raises(readside.DeclarationError, match="in a pipeline"):
            async with connection.pipeline():
                await world.app.record(connection, Paid(1, 4))
    assert await world.inline.get(1) == Account(1, "Ada", 2)
    assert await recorded(world) == 3


async def test_rows_may_be_whatever_the_command_wants_them_to_be(world: World) -> None:
    async with world.app.transaction() as tx:
        tx.connection.row_factory = dict_row  # type: ignore[assignment]  # psycopg allows it
        tx.record(Opened(1, "Ada"))
    assert await world.inline.get(1, after=tx.token) == Account(1, "Ada")
