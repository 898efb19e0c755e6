"""From one capture to the other and back, under writers, with projections that are in the middle of it."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import readside
from readside.adapters.postgres.installation import install
from readside.core.errors import RefusedError, SettingsError
from readside.core.position import Position
from readside.service import Service


class Counted(readside.Event, key="id", type="thing.counted"):
    id: str
    number: int


class History(readside.View):
    numbers: list[int]


class Writers:
    """Write numbers to a few keys until told to stop; each key's numbers are in the order of its row's lock."""

    def __init__(self, app: readside.App, dsn: str) -> None:
        self.app = app
        self.dsn = dsn
        self.table = f"truth_{app.name}"
        self.histories = app.projection(f"{app.name}-history", History)
        self.stopping = asyncio.Event()

        @self.histories.on
        def counted(event: Counted, history: History | None) -> History:
            return History([*(history.numbers if history else []), event.number])

    async def prepare(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as client:
            await client.execute(f"CREATE TABLE {self.table} (id text PRIMARY KEY, n int NOT NULL)")
            await client.execute(
                f"INSERT INTO {self.table} SELECT n, 0 FROM generate_series(0, 4) n"
            )

    async def write(self, seed: int) -> None:
        """Transactions with one to three keys, some open for a while, some rolled back."""
        chance = random.Random(seed)
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as client:
            while not self.stopping.is_set():
                keys = sorted(chance.sample(range(5), chance.randint(1, 3)))
                async with client.transaction(force_rollback=chance.random() < 0.2):
                    for key in keys:
                        await self._one(client, str(key))
                    await asyncio.sleep(chance.choice([0, 0, 0.01]))

    async def _one(self, client: Any, key: str) -> None:
        cursor = await client.execute(
            f"UPDATE {self.table} SET n = n + 1 WHERE id = %s RETURNING n", [key]
        )
        ((number,),) = await cursor.fetchall()
        await self.app.record(client, Counted(key, number))

    async def truth(self) -> dict[str, int]:
        async with await psycopg.AsyncConnection.connect(self.dsn) as client:
            return dict(await (await client.execute(f"SELECT id, n FROM {self.table}")).fetchall())

    async def in_step(self) -> None:
        """Every key's history is every number in its order, once."""
        wanted = {key: list(range(1, n + 1)) for key, n in (await self.truth()).items()}
        async with self.app.transaction() as tx:
            tx.record(*(Counted(f"end-{n}", 1) for n in range(40)))
        await self.histories.get("end-0", after=tx.token, timeout=120)
        found: dict[str, list[int]] = defaultdict(list)
        for key in wanted:
            view = await self.histories.get(key, after=tx.token, timeout=120)
            found[key] = view.numbers if view else []
        assert found == wanted


async def switch(dsn: str, app: str, capture: str) -> None:
    """Change the capture as soon as the change before has ended."""
    async with asyncio.timeout(120):
        while True:
            try:
                await install(dsn, app, 8, 1_000_000, capture)
            except RefusedError as error:
                assert "still under way" in str(error)  # noqa: PT017 - it is tried again
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("first", ["replication", "polling"])
async def test_a_change_of_capture_loses_and_repeats_nothing(
    make_app: Any, run: Any, servers: Any, broker_url: str, first: str
) -> None:
    app = make_app(broker_url, capture=first, settle_delay=0.2)
    writers = Writers(app, servers.write_store)
    await writers.prepare()
    second = "polling" if first == "replication" else "replication"
    async with run(app):
        tasks = [asyncio.create_task(writers.write(seed)) for seed in range(4)]
        for capture in (second, first, second):
            before = await writers.truth()
            await switch(servers.write_store, app.name, capture)
            async with asyncio.timeout(60):
                while (await writers.truth())["0"] < before["0"] + 5:
                    await asyncio.sleep(0.05)
        writers.stopping.set()
        await asyncio.gather(*tasks)
        await writers.in_step()
    await app.close()


async def test_a_projection_that_is_behind_gets_both_halves(
    make_app: Any, run: Any, servers: Any, broker_url: str
) -> None:
    """The change is made while nobody runs; then a relay begins before the cut."""
    app = make_app(broker_url, settle_delay=0.2)
    await (await app.runtime()).install()
    writers = Writers(app, servers.write_store)
    await writers.prepare()
    tasks = [asyncio.create_task(writers.write(seed)) for seed in range(4)]
    before = await writers.truth()
    async with asyncio.timeout(60):
        while (await writers.truth())["0"] < before["0"] + 20:
            await asyncio.sleep(0.05)
    await switch(servers.write_store, app.name, "polling")
    async with asyncio.timeout(60):
        while (await writers.truth())["0"] < before["0"] + 40:
            await asyncio.sleep(0.05)
    writers.stopping.set()
    await asyncio.gather(*tasks)
    polling = make_app(broker_url, capture="polling", settle_delay=0.2)
    polling.projections = app.projections
    async with run(polling):
        await writers.in_step()
    await app.close()
    await polling.close()


@pytest.mark.parametrize("first", ["replication", "polling"])
async def test_a_restart_in_the_middle_of_a_change_is_no_lost_history(
    make_app: Any, run: Any, servers: Any, first: str
) -> None:
    """What the broker holds from both sides of the cut is known when the next relay begins before it."""
    second = "polling" if first == "replication" else "replication"
    app = make_app(capture=first, settle_delay=0.2)
    await (await app.runtime()).install()
    writers = Writers(app, servers.write_store)
    await writers.prepare()
    changed = make_app(capture=second, settle_delay=0.2)
    changed.projections = app.projections
    tasks = [asyncio.create_task(writers.write(seed)) for seed in range(2)]
    await counted(writers, 10)
    # Without a projector nothing is confirmed, so the change goes on and on.
    async with run(app, "relay"):
        await switch(servers.write_store, app.name, second)
    epoch = await noted(servers.write_store, app.name, "epoch")
    for _ in range(3):
        await counted(writers, 10)
        async with run(changed, "relay") as service:
            await shipped_beyond_the_cut(servers.write_store, app.name, service)
    assert await noted(servers.write_store, app.name, "confirmed_lsn < cut_lsn")
    async with run(changed):
        writers.stopping.set()
        await asyncio.gather(*tasks)
        await writers.in_step()
    assert await noted(servers.write_store, app.name, "epoch") == epoch
    assert await noted(servers.write_store, app.name, "complete")
    await app.close()
    await changed.close()


async def counted(writers: Writers, more: int) -> None:
    """Wait until so many more were written."""
    before = (await writers.truth())["0"]
    async with asyncio.timeout(60):
        while (await writers.truth())["0"] < before + more:
            await asyncio.sleep(0.05)


async def noted(dsn: str, app: str, what: str) -> Any:
    async with await psycopg.AsyncConnection.connect(dsn) as client:
        query = f"SELECT {what} FROM readside.capture WHERE app = %s"
        return (await (await client.execute(query.encode(), [app])).fetchall())[0][0]


async def shipped_beyond_the_cut(dsn: str, app: str, service: Service) -> None:
    """Wait until the broker has events of the new capture."""
    heads = "(SELECT max(head ->> 0) FROM jsonb_array_elements(shipped_heads) head)"
    async with asyncio.timeout(60):
        while True:
            newest = await noted(dsn, app, heads)
            if newest and Position.decode(newest).lsn >= await noted(dsn, app, "cut_lsn"):
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("broker_url", ["nats"], indirect=True)
async def test_the_bound_on_retained_wal_holds_while_a_slot_has_to_tell_the_rest(
    make_app: Any, run: Any, servers: Any, broker_url: str
) -> None:
    """Polling keeps no WAL; but until everybody has what came before the cut, the slot does."""
    app = make_app(broker_url)
    await (await app.runtime()).install()
    writers = Writers(app, servers.write_store)  # with a projection that never runs
    await switch(servers.write_store, app.name, "polling")
    polling = make_app(broker_url, capture="polling", retained_wal_mb=1)
    polling.projections = app.projections
    slots = "(SELECT count(*) FROM pg_replication_slots WHERE slot_name = slot)"
    async with run(polling, "relay"):
        assert await noted(servers.write_store, app.name, slots) == 1
        async with (
            asyncio.timeout(120),
            await psycopg.AsyncConnection.connect(servers.write_store, autocommit=True) as client,
        ):
            while await noted(servers.write_store, app.name, slots):
                await app.record(client, *(Counted("x" * 500, n) for n in range(100)))
        # From here on it keeps rows, as many as it takes.
        confirmed = await noted(servers.write_store, app.name, "confirmed_lsn")
        async with await psycopg.AsyncConnection.connect(
            servers.write_store, autocommit=True
        ) as client:
            for _ in range(60):
                await app.record(client, *(Counted("x" * 500, n) for n in range(100)))
            async with asyncio.timeout(120):
                while not await noted(
                    servers.write_store, app.name, f"shipped_lsn > {confirmed} + 3000000"
                ):
                    await app.record(client, Counted("x", 1))
        assert await noted(servers.write_store, app.name, "confirmed_lsn") == confirmed
        assert writers.histories.name
    await app.close()
    await polling.close()


async def test_a_role_may_have_any_level_of_isolation(
    servers: Any, run: Any, unique: str, broker_url: str
) -> None:
    """Relay, projectors and `init` of a user who has another default than PostgreSQL's."""
    level = quote("-c default_transaction_isolation=serializable")
    app = readside.App(
        unique,
        write_store=f"{servers.write_store}?options={level}",
        broker=broker_url,
        read_store=servers.read_store,
        capture="polling",
        settle_delay=0.2,
    )
    writers = Writers(app, servers.write_store)
    await writers.prepare()
    async with run(app):
        tasks = [asyncio.create_task(writers.write(seed)) for seed in range(3)]
        await counted(writers, 30)
        writers.stopping.set()
        await asyncio.gather(*tasks)
        await writers.in_step()
    await app.close()


async def test_another_setting_than_what_is_installed_is_refused(make_app: Any) -> None:
    app = make_app()
    await (await app.runtime()).install()
    other = make_app(capture="polling")
    with pytest.raises(SettingsError, match="capture by replication"):
        await Service(await other.runtime(), {}).run()
    await app.close()
    await other.close()
