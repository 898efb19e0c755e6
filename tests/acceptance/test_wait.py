"""Projections for which the command waits, on real servers, through NATS and without a broker."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row
from tests.acceptance.accounts import Opened, Paid

import readside

#: Nothing here takes a fraction of it; a command that waits for it has waited for what never comes.
PATIENCE = 60.0


class Account(readside.View):
    id: int
    owner: str
    balance: int = 0


def routed(event: Paid) -> list[int]:
    if event.amount == 14:
        raise LookupError("nobody")
    return [event.id, *event.to]


def declare(projection: Any) -> Any:
    """The same handlers, whatever the mode."""

    @projection.on
    def opened(event: Opened) -> Account:
        return Account(event.id, event.owner)

    @projection.on(Paid, key=routed)
    def paid(event: Paid, account: Account | None) -> Account | None:
        if event.amount == 13:
            raise ZeroDivisionError("unlucky")
        return account and msgspec.structs.replace(account, balance=account.balance + event.amount)

    return projection


class World:
    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.accounts = declare(app.projection(f"{app.name}-account", Account, mode="wait"))

    @property
    def name(self) -> str:
        return self.accounts.name

    async def write(self, *events: readside.Event, timeout: float = PATIENCE) -> Any:
        async with self.app.transaction(timeout=timeout) as tx:
            tx.record(*events)
        return tx


@pytest.fixture
async def world(make_app: Any, broker_url: str, store_url: str) -> Any:
    # Every pair of capture, broker and store, in half as many tests as every three of them.
    odd = broker_url.startswith("direct") != store_url.startswith("postgresql")
    capture = "polling" if odd else "replication"
    world = World(make_app(broker_url, read_store=store_url, capture=capture))
    await (await world.app.runtime()).install()
    yield world
    await world.app.close()


@pytest.fixture
async def plain(make_app: Any) -> Any:
    """Where brokers and stores make no difference."""
    world = World(make_app("direct:"))
    await (await world.app.runtime()).install()
    yield world
    await world.app.close()


async def test_after_the_block_every_reader_sees_it(world: World, run: Any) -> None:
    async with run(world.app):
        for number in range(10):
            tx = await world.write(Opened(number, "Ada"), Opened(100 + number, "Grace"))
            assert not tx.late
            found = await world.accounts.get_many([number, 100 + number])
            assert found == [Account(number, "Ada"), Account(100 + number, "Grace")]
            tx = await world.write(Paid(number, 5, [100 + number]))
            assert not tx.late
            assert await world.accounts.get(100 + number) == Account(100 + number, "Grace", 5)


async def test_fifty_commands_at_once(world: World, run: Any) -> None:
    async def command(number: int) -> None:
        tx = await world.write(Opened(number, f"{number}"), Paid(number, 100 + number))
        assert not tx.late
        assert await world.accounts.get(number) == Account(number, f"{number}", 100 + number)

    async with run(world.app):
        await asyncio.gather(*map(command, range(50)))


async def test_who_waits_holds_no_connection_to_postgresql(make_app: Any, servers: Any) -> None:
    """With nobody who projects and one connection: the second command comes in while the first waits."""
    world = World(make_app(servers.broker, pool_size=1))
    await (await world.app.runtime()).install()
    first = asyncio.create_task(world.write(Opened(1, "Ada"), timeout=PATIENCE))
    await committed(world, 1)
    tx = await world.write(Opened(2, "Grace"), timeout=0)
    assert not first.done()
    assert set(tx.late) == {world.name}
    first.cancel()
    await asyncio.wait({first})
    await world.app.close()


async def committed(world: World, count: int) -> None:
    dsn = world.app.settings.write_store
    query = f"SELECT count(*) FROM readside.outbox_{world.app.name}".encode()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while await (await connection.execute(query)).fetchone() != (count,):
            await asyncio.sleep(0.01)


async def test_with_nobody_who_projects_the_write_stands_and_the_view_catches_up(
    world: World, run: Any
) -> None:
    tx = await world.write(Opened(1, "Ada"), timeout=0.2)
    assert {name: type(why) for name, why in tx.late.items()} == {
        world.name: readside.StaleReadError
    }
    async with run(world.app):
        found = await world.accounts.get(1, after=tx.token, timeout=PATIENCE)
        assert found == Account(1, "Ada")
        assert await world.app.wait(str(tx.token), timeout=PATIENCE) == {}


async def test_a_rollback_waits_for_nothing(plain: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with plain.app.transaction(timeout=PATIENCE) as tx:
            tx.record(Opened(1, "nobody"))
            _ = 1 / 0
    with pytest.raises(RuntimeError, match=r"tx\.late is known after the block"):
        _ = tx.late
    async with plain.app.transaction(timeout=PATIENCE) as tx:
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                tx.record(Opened(1, "nobody"))
                _ = 1 / 0
    assert tx.late == {}


async def test_what_no_projection_handles_is_not_waited_for(plain: World) -> None:
    class Unheard(readside.Event, key="id"):
        id: int

    assert (await plain.write(Unheard(1))).late == {}
    assert (await plain.write()).late == {}


async def test_who_is_cancelled_while_it_waits_has_committed(plain: World, run: Any) -> None:
    seen: list[Any] = []

    async def command() -> None:
        async with plain.app.transaction(timeout=PATIENCE) as tx:
            seen.append(tx)
            tx.record(Opened(1, "Ada"))

    task = asyncio.create_task(command())
    await committed(plain, 1)
    while seen[0]._token is None:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(seen[0].late) == {plain.name}
    async with run(plain.app):
        assert await plain.accounts.get(1, after=seen[0].token, timeout=PATIENCE)


async def test_a_document_that_waits_behind_its_event_is_told(world: World, run: Any) -> None:
    async with run(world.app):
        assert not (await world.write(Opened(1, "Ada"), Opened(2, "Grace"))).late
        for event in (Paid(1, 13), Paid(1, 1)):
            tx = await world.write(event)
            why = tx.late[world.name]
            assert isinstance(why, readside.ParkedError)
            with pytest.raises(readside.ParkedError):
                await world.accounts.get(1, after=tx.token)
        assert not (await world.write(Paid(2, 1))).late
        many = [Paid(number, 1) for number in range(2, 40)]
        assert not (await world.write(*many)).late
        assert (await world.write(*many, Paid(1, 1))).late


async def test_an_event_whose_document_nobody_can_tell_is_told(plain: World, run: Any) -> None:
    async with run(plain.app):
        tx = await plain.write(Paid(7, 14))
        why = tx.late[plain.name]
        assert isinstance(why, readside.ParkedError)
        assert "what happened to 7, whose documents nobody can tell, waits" in str(why)


async def test_a_lost_projection_is_told(plain: World, run: Any) -> None:
    async with run(plain.app):
        assert not (await plain.write(Opened(1, "Ada"))).late
        store = await (await plain.app.runtime()).store()
        await store.halt(plain.name, 7, "for this test")
        tx = await plain.write(Opened(2, "Ada"))
        assert isinstance(tx.late[plain.name], readside.HistoryLostError)


async def test_side_by_side_with_the_other_modes(make_app: Any, servers: Any, run: Any) -> None:
    world = World(make_app(servers.broker))
    name = world.app.name
    inline = declare(
        world.app.projection(
            f"{name}-inline", Account, mode="inline", table=readside.Table(key="id")
        )
    )
    later = declare(world.app.projection(f"{name}-later", Account, mode="async"))
    await (await world.app.runtime()).install()
    tx = await world.write(Opened(1, "Ada"), timeout=0.1)
    assert await inline.get(1) == Account(1, "Ada")
    assert list(tx.late) == [world.name]
    async with run(world.app):
        tx = await world.write(Paid(1, 3))
        assert not tx.late
        found = [await one.get(1) for one in (inline, world.accounts)]
        assert found == [Account(1, "Ada", 3)] * 2
        assert await later.get(1, after=tx.token, timeout=PATIENCE) == Account(1, "Ada", 3)
        with pytest.raises(readside.HandlerError):
            await world.write(Paid(1, 13))
        assert await world.accounts.get(1) == Account(1, "Ada", 3)
    await world.app.close()


async def test_events_on_a_connection_of_your_own(world: World, run: Any) -> None:
    dsn = world.app.settings.write_store
    events = [Opened(1, "Ada"), Paid(1, 3)]
    async with run(world.app):
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
            await world.app.record(connection, *events)
        token = await world.app.token(*events)
        assert len(token.partitions) == 1
        assert await world.app.wait(token, timeout=PATIENCE) == {}
        assert await world.accounts.get(1) == Account(1, "Ada", 3)
        with psycopg.connect(dsn) as plain:
            plain.execute("SET synchronous_commit = off")
            world.app.record(plain, Paid(1, 1))
        assert await world.app.wait(await world.app.token(Paid(1, 1)), timeout=PATIENCE) == {}
        assert await world.accounts.get(1) == Account(1, "Ada", 4)
    late = await world.app.wait(await world.app.token(*events), timeout=0.1)
    assert list(late) == [world.name]
    with pytest.raises(readside.ReadsideError, match="no token"):
        await world.app.wait("r2-what")


async def test_what_was_flushed_before_is_waited_for_too(plain: World, run: Any) -> None:
    async with run(plain.app):
        async with plain.app.transaction(timeout=PATIENCE) as tx:
            tx.record(*(Opened(number, "Ada") for number in range(50)))
            await tx.flush()
        assert not tx.late
        assert await plain.accounts.get_many(range(50)) == [Account(n, "Ada") for n in range(50)]
    async with plain.app.transaction(timeout=0.1) as tx:
        tx.record(Opened(1, "Ada"))
        await tx.flush()
    assert tx.late


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
async def test_a_time_that_is_none_is_refused_before_anything_is_written(
    plain: World, timeout: float
) -> None:
    with pytest.raises(ValueError, match="use seconds, 0 or more"):
        await plain.write(Opened(1, "Ada"), timeout=timeout)


def test_the_setting_is_for_projections_that_say_none(make_app: Any, monkeypatch: Any) -> None:
    assert make_app().projection("x", Account).mode == "async"
    monkeypatch.setenv("READSIDE_MODE", "wait")
    app = make_app()
    assert app.projection("x", Account).mode == "wait"
    assert app.projection("y", Account, mode="async").mode == "async"
    assert make_app(mode="inline").projection("x", Account).mode == "inline"


async def test_between_waiting_and_not_waiting_nothing_has_to_be_done(
    make_app: Any, broker_url: str, store_url: str, run: Any
) -> None:
    for number, mode in enumerate(("async", "wait", "async", "wait")):
        app = make_app(broker_url, read_store=store_url, mode=mode)
        accounts = declare(app.projection(f"{app.name}-account", Account))
        async with run(app):
            async with app.transaction(timeout=PATIENCE) as tx:
                tx.record(Opened(number, "Ada"), *(Paid(n, 1) for n in range(number)))
            assert not tx.late
            after = tx.token if mode == "async" else None
            found = await accounts.get_many(range(number + 1), after=after, timeout=PATIENCE)
        assert [one.balance for one in found] == list(range(number, -1, -1))
        await app.close()


async def test_what_was_inline_does_not_go_stale_in_silence(make_app: Any, store_url: str) -> None:
    def declared(mode: Any) -> readside.App:
        app = make_app("direct:", read_store=store_url, mode=mode)
        declare(app.projection(f"{app.name}-account", Account))
        return app

    before = declared("inline")
    await (await before.runtime()).install()
    await before.close()
    for mode in ("wait", "async"):
        app = declared(mode)
        with pytest.raises(readside.RefusedError, match="was inline") as caught:
            await (await app.runtime()).install()
        assert "readside forget module:app" in caught.value.mend
        await app.close()
