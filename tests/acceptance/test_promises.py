"""What a user is promised, on real servers, through NATS and without a broker."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import nats
import psycopg
import pytest
from redis.asyncio import Redis
from tests.acceptance import things
from tests.acceptance.things import Counted, Created, Deleted, History, Renamed, Thing, World

import readside
from readside.adapters.nats.broker import NatsBroker
from readside.core.record import Record

world = things.world


async def test_what_is_written_is_read(world: World, run: Any, servers: Any) -> None:
    async with run(world.app):
        token = await world.write(Created("1", "Ada"))
        assert await world.things.get("1", after=token) == Thing("1", "Ada")
        token = await world.write(Renamed("1", "Grace"))
        assert await world.things.get("1", after=str(token)) == Thing("1", "Grace")
        token = await world.write(Deleted("1"))
        assert await world.things.get("1", after=token) is None
        token = await world.write(Created("1", "Edsger"), Created("2", "Barbara"))
        found = await world.things.get_many(["2", "1", "3"], after=token)
    assert found == [Thing("2", "Barbara"), Thing("1", "Edsger"), None]
    await _look_behind_its_back(world, servers)


async def _look_behind_its_back(world: World, servers: Any) -> None:
    """The document of key 2, with the vendor's own client."""
    if world.app.settings.read_store == "postgresql:":
        async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
            table = f'{world.app.name}."{world.things.name}"'
            found = await connection.execute(f"SELECT * FROM {table} WHERE key = '2'".encode())
            assert await found.fetchall() == [("2", "2", "Barbara")]
        return
    client: Any = Redis.from_url(servers.read_store)
    assert await client.get(f"{world.things.name}:2") == b'{"id":"2","name":"Barbara"}'
    await client.aclose()


async def test_what_was_written_while_nobody_listened_arrives_later(world: World, run: Any) -> None:
    tokens = [await world.write(Created(str(n), f"n{n}")) for n in range(50)]
    async with run(world.app):
        found = await world.things.get_many(range(50), after=tokens[-1], timeout=20)
        for token in tokens:
            await world.things.get("0", after=token)
        found = await world.things.get_many(range(50))
    assert found == [Thing(str(n), f"n{n}") for n in range(50)]


async def test_duplicates_and_old_events_change_nothing(
    make_app: Any, run: Any, servers: Any
) -> None:
    world = World(make_app(servers.broker))
    async with run(world.app):
        for number in range(1, 21):
            token = await world.write(Counted("a", number))
        assert await world.histories.get("a", after=token) == History(list(range(1, 21)))
        await _publish_everything_again(world.app.name, servers.broker)
        token = await world.write(Counted("a", 21), Counted("b", 1))
        assert await world.histories.get("a", after=token) == History(list(range(1, 22)))
        assert await world.histories.get("b", after=token) == History([1])
    await world.app.close()


async def _publish_everything_again(app: str, url: str) -> None:
    broker = NatsBroker(url)
    await broker.open(app, 8)
    records: list[Record] = []
    for partition in range(8):
        subscription = await broker.subscribe(partition, "")
        while batch := (await subscription.read(_limits(), 0.3)).records:
            records += batch
        await subscription.close()
    assert len(records) >= 20
    await broker.publish(records)
    await broker.publish(records[::-1])
    await broker.close()


def _limits() -> Any:
    from readside.core.batching import Limits

    return Limits()


async def test_concurrent_transactions_keep_the_order_of_each_key(
    world: World, run: Any, unique: str
) -> None:
    keys, total, writers = 5, 5000, 8
    async with world.app.transaction() as tx:
        await tx.execute(f"CREATE TABLE {unique} (id text PRIMARY KEY, n int NOT NULL)")
        await tx.execute(
            f"INSERT INTO {unique} SELECT k::text, 0 FROM generate_series(0, {keys - 1}) k"
        )
    numbers = iter(range(total))

    async def writer() -> readside.Token:
        for number in numbers:
            async with world.app.transaction() as tx:
                row = await tx.fetchone(
                    f"UPDATE {unique} SET n = n + 1 WHERE id = %s RETURNING id, n",
                    str(number % keys),
                )
                tx.record(Counted(row.id, row.n))
        return tx.token

    async with run(world.app):
        tokens = await asyncio.gather(*(writer() for _ in range(writers)))
        everything = readside.Token(max(token.position for token in tokens), tuple(range(8)))
        for key in range(keys):
            history = await world.histories.get(key, after=everything, timeout=60)
            assert history is not None
            assert history.numbers == list(range(1, total // keys + 1))


async def test_a_transaction_with_100000_events(world: World, run: Any) -> None:
    async with world.app.transaction() as tx:
        tx.record(*(Created(str(n % 70_000), f"n{n}") for n in range(100_000)))
    async with run(world.app):
        found = await world.things.get_many(
            range(70_000), after=readside.Token(tx.token.position, tuple(range(8))), timeout=120
        )
    assert found == [Thing(str(n), f"n{n + 70_000 if n < 30_000 else n}") for n in range(70_000)]


@pytest.mark.parametrize(
    "name",
    ["", "\0", "a\0b", "\U0001f600 ünïcödé \u2028", '"\\\n\t', "x" * 999_900],
    ids=["empty", "nul", "nul-inside", "unicode", "escapes", "1MB"],
)
async def test_payloads_of_every_kind(world: World, run: Any, name: str) -> None:
    async with run(world.app):
        for key in ("plain", "with space", "dots.and*stars>", "käse/{brace}:%41"):
            token = await world.write(Created(key, name))
            if "\0" in name and world.app.settings.read_store == "postgresql:":
                with pytest.raises(readside.ParkedError):  # no column of PostgreSQL can hold it
                    await world.things.get(key, after=token, timeout=20)
                continue
            assert await world.things.get(key, after=token, timeout=20) == Thing(key, name)


async def test_relay_and_projector_restart_in_the_middle(
    make_app: Any, run: Any, servers: Any
) -> None:
    world = World(make_app(servers.broker))
    await (await world.app.runtime()).install()
    written: list[readside.Token] = []

    async def restarts(role: str) -> None:
        for _ in range(3):
            async with run(world.app, role) as service:
                before = len(written)
                while len(written) < before + 50:
                    await asyncio.sleep(0.01)
            assert service.ready.is_set()

    services = [asyncio.create_task(restarts(role)) for role in ("relay", "projector")]
    while not all(service.done() for service in services):
        written.append(await world.write(Counted(str(len(written) % 7), len(written))))
    await asyncio.gather(*services)
    token, total = written[-1], len(written)
    async with run(world.app):
        everything = readside.Token(token.position, tuple(range(8)))
        for key in range(7):
            history = await world.histories.get(key, after=everything, timeout=20)
            assert history == History(list(range(key, total, 7)))
    await world.app.close()


async def test_any_nats_client_hears_plain_json(make_app: Any, run: Any, servers: Any) -> None:
    world = World(make_app(servers.broker))
    client = await nats.connect(servers.broker)
    heard: list[Any] = []

    async def on_message(message: Any) -> None:
        heard.append(message)

    await client.subscribe(f"{world.app.name}.*.thing.created", cb=on_message)
    await client.flush()
    async with run(world.app):
        async with world.app.transaction() as tx:
            tx.record(Created("käse", "Ada"), headers={"traceparent": "00-ab-cd-01"})
        await world.things.get("käse", after=tx.token)
        await client.flush()
    (message,) = heard
    assert msgspec.json.decode(message.data) == {"id": "käse", "name": "Ada"}
    assert message.headers["traceparent"] == "00-ab-cd-01"
    assert message.headers["Readside"].endswith(" k%C3%A4se")
    await client.close()
    await world.app.close()


async def test_a_late_reader_is_told_so(world: World) -> None:
    token = await world.write(Created("1", "Ada"))
    with pytest.raises(readside.StaleReadError, match="has not reached"):
        await world.things.get("1", after=token, timeout=0.05)


async def test_the_source_forgets_only_what_was_applied(
    make_app: Any, run: Any, servers: Any
) -> None:
    world = World(make_app(servers.broker, settle_delay=0.01))
    runtime = await world.app.runtime()
    await runtime.install()

    async def confirmed() -> int:
        with psycopg.connect(servers.write_store) as connection:
            row = connection.execute(
                "SELECT confirmed_lsn FROM readside.capture WHERE app = %s", [world.app.name]
            ).fetchone()
        assert row is not None
        return int(row[0])

    before = await confirmed()
    token = await world.write(Created("1", "Ada"))
    async with run(world.app, "relay") as service:
        while not (service.relay and service.relay.shipped):
            await asyncio.sleep(0.01)
        for _ in range(50):
            await asyncio.sleep(0.01)
        assert await confirmed() == before
    async with run(world.app):
        await world.things.get("1", after=token)
        while await confirmed() <= token.position.lsn:
            await asyncio.sleep(0.01)
    await world.app.close()
