"""Poison parks a document, not the pipeline; after the fix, a retry makes it right, once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest

import readside
from readside.adapters.postgres.session import Session
from readside.apps.cli.dead_letters import Choice, discard
from readside.core.position import Position
from readside.operate.dead_letters import DeadLetters, ParkedDocument
from readside.ports.probe import listening

ALL = tuple(range(8))


class Added(readside.Event, key="id", type="entry.added"):
    id: str
    number: int
    to: str = ""


class Numbers(readside.View):
    numbers: list[int]


class Died(BaseException):
    pass


class World:
    """Lists of numbers, by the event's own key and by another field; 13 cannot be applied nor routed."""

    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.mended = False
        self.reason = "thirteen"
        self.own = app.projection(f"{app.name}-own", Numbers)
        self.routed = app.projection(f"{app.name}-routed", Numbers)

        @self.own.on
        def added(event: Added, view: Numbers | None) -> Numbers:
            self.check(event)
            return Numbers([*(view.numbers if view else []), event.number])

        @self.routed.on(Added, key=self.route)
        def routed(event: Added, view: Numbers | None) -> Numbers:
            return Numbers([*(view.numbers if view else []), event.number])

    def check(self, event: Added) -> None:
        if event.number == 13 and not self.mended:
            raise ValueError(self.reason)

    def route(self, event: Added) -> list[str]:
        self.check(event)
        return [event.to] if event.to else []

    async def write(self, *events: Added) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*events)
        return readside.Token(tx.token.position, ALL)

    async def retry(self, document: ParkedDocument) -> str:
        projection = self.app.projections[document.projection]
        store = await (await self.app.runtime()).store()
        return (await self.letters.retry(document, projection, store)).error

    async def open(self) -> None:
        runtime = await self.app.runtime()
        await runtime.install()
        self.dsn = (await runtime.addresses()).write_store
        self.session = Session(self.dsn, "test")
        self.letters = DeadLetters(self.session, self.app.name)


@pytest.fixture
async def world(make_app: Any, broker_url: str, store_url: str) -> Any:
    world = World(make_app(broker_url, read_store=store_url))
    await world.open()
    yield world
    await world.session.close()
    await world.app.close()


async def test_one_document_waits_and_ten_thousand_others_flow(world: World, run: Any) -> None:
    others = [Added(str(n), n) for n in range(10_000) if n != 13]
    async with run(world.app):
        await world.write(Added("bad", 1), Added("bad", 13), Added("bad", 2))
        await world.write(*others)
        token = await world.write(Added("bad", 3))
        keys = [event.id for event in others]
        found = await world.own.get_many(keys, after=token, timeout=120)
        assert found == [Numbers([event.number]) for event in others]
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token)
        assert await world.own.get("bad") == Numbers([1])  # as it is, for those who do not ask

        (parked,) = await world.letters.find(projection=world.own.name, error="thirteen")
        assert (parked.projection, parked.key, parked.events) == (world.own.name, "bad", 3)
        assert (parked.error_type, parked.event_type) == ("ValueError", "entry.added")
        details = await world.letters.show(parked)
        assert "in check" in details.traceback
        assert details.waiting[0].payload.startswith('{"id":"bad","number":13')

        assert "thirteen" in await world.retry(parked)
        (again,) = await world.letters.find(projection=world.own.name)
        assert again.attempts == 2
        world.reason = "still thirteen"
        assert "still thirteen" in await world.retry(parked)
        (again,) = await world.letters.find(projection=world.own.name, error="still thirteen")
        assert (await world.letters.show(again)).traceback.endswith(again.error + "\n")
        world.mended = True
        assert await world.retry(parked) == ""
        assert await world.letters.find(projection=world.own.name) == []
        token = await world.write(Added("bad", 4))
        assert await world.own.get("bad", after=token) == Numbers([1, 13, 2, 3, 4])


@pytest.mark.parametrize("moment", ["dead_letters.folded", "dead_letters.freed"])
async def test_a_retry_that_dies_is_repeated_without_harm(
    world: World, run: Any, moment: str
) -> None:
    def die(passed: str) -> None:
        if passed == moment:
            raise Died

    async with run(world.app):
        token = await world.write(Added("bad", 13), Added("bad", 2))
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token, timeout=60)
        world.mended = True
        (parked,) = await world.letters.find(projection=world.own.name)
        with listening(die), pytest.raises(Died):
            await world.retry(parked)
        assert await world.retry(parked) == ""
        token = await world.write(Added("bad", 3))
        assert await world.own.get("bad", after=token, timeout=60) == Numbers([13, 2, 3])


async def test_a_document_with_waiting_events_is_not_freed(world: World, run: Any) -> None:
    async with run(world.app):
        token = await world.write(Added("bad", 13))
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token, timeout=60)
        (parked,) = await world.letters.find(projection=world.own.name)
        store = await (await world.app.runtime()).store()
        assert not await world.letters.free(parked, store)
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token)
        assert parked in await world.letters.find()


async def test_who_frees_a_document_waits_for_an_event_that_is_parked_behind_it(
    world: World, run: Any
) -> None:
    """The event is written and not committed when the retry looks for what waits."""
    async with run(world.app):
        token = await world.write(Added("bad", 13), Added("bad", 2))
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token, timeout=60)
        (parked,) = await world.letters.find(projection=world.own.name)
        store = await (await world.app.runtime()).store()
        which = [world.app.name, parked.projection, parked.partition, parked.key]
        where = " WHERE app = %s AND projection = %s AND partition = %s AND key = %s"
        applied = "UPDATE readside.parked_events SET applied_at = clock_timestamp()" + where
        await world.session.query(applied, which)
        async with await psycopg.AsyncConnection.connect(world.dsn) as projector:
            lock = "SELECT 1 FROM readside.parked_documents" + where + " FOR UPDATE"
            await projector.execute(lock.encode(), which)
            comes = "UPDATE readside.parked_events SET applied_at = NULL" + where
            await projector.execute(comes.encode(), which)
            freed = asyncio.ensure_future(world.letters.free(parked, store))
            await waits_for_lock(world)
            assert not freed.done()
            await projector.commit()
        assert not await asyncio.wait_for(freed, 30)
        assert parked.key in [one.key for one in await world.letters.find()]


async def waits_for_lock(world: World) -> None:
    """Until somebody waits for what another transaction holds of a parked document."""
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as looks:
        async with asyncio.timeout(30):
            while True:
                found = await looks.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND query LIKE '%readside.parked_documents%'"
                )
                if await found.fetchone():
                    return
                await asyncio.sleep(0.05)


async def test_a_discarded_event_is_gone_and_the_rest_goes_on(
    world: World, run: Any, caplog: Any
) -> None:
    async with run(world.app):
        token = await world.write(Added("bad", 1), Added("bad", 13), Added("bad", 2))
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token, timeout=60)
        (parked,) = await world.letters.find(projection=world.own.name)
        assert await world.letters.discard(parked, whole=False) == 1
        position = Position.decode(parked.position)
        (said,) = [one for one in caplog.records if one.name == "readside.dead_letters"]
        assert said.levelname == "WARNING"
        assert said.getMessage() == (
            f"{world.own.name}:bad, partition {parked.partition}:"
            f" 1 events given up, at {position}: 1 entry.added"
        )
        assert await world.letters.discard(parked, whole=False) == 0
        assert await world.retry(parked) == ""
        token = await world.write(Added("bad", 3))
        assert await world.own.get("bad", after=token, timeout=60) == Numbers([1, 2, 3])


async def test_what_is_discarded_of_a_document_in_several_partitions_is_told_for_each(
    world: World, run: Any, capsys: Any
) -> None:
    joined = world.app.projection(f"{world.app.name}-joined", Numbers)

    @joined.on(Added, key="to")
    def added(event: Added) -> Numbers:
        raise ValueError(event.number)

    async with run(world.app):
        await world.write(*(Added(str(n), n, "d") for n in range(20)))
        while sum(one.events for one in await world.letters.find(projection=joined.name)) < 20:
            await asyncio.sleep(0.05)
        capsys.readouterr()
        choice = Choice(joined.name, None, None)
        await discard(world.app, choice, everything=False, whole=True, json=True)
        told = json.loads(capsys.readouterr().out)
    assert len({one["partition"] for one in told}) == len(told) > 1
    assert sum(one["events"] for one in told) == 20
    assert {(one["projection"], one["key"]) for one in told} == {(joined.name, "d")}


@pytest.mark.parametrize("interrupted", [False, True])
async def test_events_whose_document_is_unknown_are_applied_late_and_once(
    world: World, run: Any, interrupted: bool
) -> None:
    def die(passed: str) -> None:
        if passed == "dead_letters.folded":
            raise Died

    async with run(world.app):
        await world.write(Added("x", 13, "d"), Added("y", 1, "d"), Added("x", 2, "d"))
        token = await world.write(Added("y", 3, "d"))
        assert await world.routed.get("d", after=token, timeout=60) == Numbers([1, 3])
        found = await world.letters.find(projection=world.routed.name)
        assert [(one.key, one.unrouted, one.events) for one in found] == [("x", True, 2)]
        world.mended = True
        if interrupted:
            with listening(die), pytest.raises(Died):
                await world.retry(found[0])
        assert await world.retry(found[0]) == ""
        token = await world.write(Added("x", 4, "d"), Added("y", 5, "d"))
        view = await world.routed.get("d", after=token, timeout=60)
        assert view is not None
        assert view.numbers[:4] == [1, 3, 13, 2]
        assert sorted(view.numbers[4:]) == [4, 5]


async def test_what_was_discarded_whole_still_has_to_be_reached_before_the_next(
    world: World, run: Any
) -> None:
    """The process dies after the parking and before the documents: they are replayed first."""

    def die(passed: str) -> None:
        if passed == "projector.parked":
            raise Died

    await world.write(Added("bad", 1), Added("bad", 2), Added("bad", 13), Added("bad", 3))
    with listening(die):
        async with run(world.app):
            while not await world.letters.find(projection=world.own.name):
                await asyncio.sleep(0.01)
    (parked,) = await world.letters.find(projection=world.own.name)
    assert await world.letters.discard(parked, whole=True) == 2
    async with run(world.app):
        token = await world.write(Added("bad", 4))
        with pytest.raises(readside.ParkedError):
            await world.own.get("bad", after=token, timeout=60)
        (parked,) = await world.letters.find(projection=world.own.name)
        world.mended = True
        assert await world.retry(parked) == ""
        token = await world.write(Added("bad", 5))
        view = await world.own.get("bad", after=token, timeout=60)
        assert view is not None
        assert [n for n in view.numbers if n not in (13, 3)] == [1, 2, 4, 5]
