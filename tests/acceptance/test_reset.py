"""A projection is emptied and begins again, while everything runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import readside
from readside.adapters.postgres.session import Session
from readside.core.errors import FencedError
from readside.operate.reset import forget, reset
from readside.ports.probe import listening

ALL = tuple(range(8))


class Added(readside.Event, key="id", type="list.added"):
    id: str
    number: int


class Spoilt(readside.Event, key="id", type="list.spoilt"):
    id: str


class Numbers(readside.View):
    numbers: list[int]


class Died(BaseException):
    pass


class World:
    def __init__(self, app: readside.App) -> None:
        self.app = app
        self.name = f"{app.name}-numbers"
        self.numbers = app.projection(self.name, Numbers)
        self.session = Session(app.settings.write_store, "test")

        @self.numbers.on
        def added(event: Added, view: Numbers | None) -> Numbers:
            return Numbers([*(view.numbers if view else []), event.number])

        @self.numbers.on
        def spoilt(event: Spoilt, view: Numbers | None) -> Numbers:
            raise ValueError("spoilt")

    async def write(self, *numbers: int) -> readside.Token:
        async with self.app.transaction() as tx:
            tx.record(*(Added("a", number) for number in numbers))
        return readside.Token(tx.token.position, ALL)

    async def spoil(self, key: str) -> None:
        """Record an event that is going to be parked, and wait until it is."""
        async with self.app.transaction() as tx:
            tx.record(Spoilt(key))
        while key not in await self.parked():
            await asyncio.sleep(0.05)

    async def parked(self) -> list[str]:
        query = "SELECT key FROM readside.parked_documents WHERE app = %s"
        return [key for (key,) in await self.session.query(query, [self.app.name])]

    async def expire(self) -> None:
        """Let the lease of a reset run out."""
        await self.session.query(
            "UPDATE readside.leases SET expires_at = '-infinity'"
            " WHERE app = %s AND owner LIKE 'reset%%'",
            [self.app.name],
        )

    async def know(self, token: int) -> None:
        """Let the notes have this token for everything, as if they were restored."""
        for table in ("leases", "progress"):
            await self.session.query(
                f"UPDATE readside.{table} SET token = %s WHERE app = %s", [token, self.app.name]
            )

    async def read(self, token: readside.Token) -> list[int]:
        view = await self.numbers.get("a", after=token, timeout=60)
        return view.numbers if view else []

    async def reset(self, *, give_up: bool = False) -> int:
        store = await (await self.app.runtime()).store()
        done = await reset(self.session, self.app.name, self.name, store, give_up=give_up)
        return done.removed


@pytest.fixture
async def world(make_app: Any, servers: Any, store_url: str, request: pytest.FixtureRequest) -> Any:
    broker = getattr(request, "param", servers.broker)
    world = World(make_app(broker, read_store=store_url, settle_delay=0.1))
    await (await world.app.runtime()).install()
    yield world
    await world.session.close()
    await world.app.close()


async def test_it_fills_up_again_from_the_first_event(world: World, run: Any) -> None:
    async with run(world.app):
        assert await world.read(await world.write(1, 2, 3)) == [1, 2, 3]
        assert await world.reset() == 1
        assert await world.read(await world.write(4)) == [1, 2, 3, 4]


@pytest.mark.parametrize("world", ["direct:"], indirect=True)
async def test_without_a_log_it_can_be_given_up_and_begins_with_what_there_is(
    world: World, run: Any
) -> None:
    async with run(world.app):
        token = await world.write(1, 2)
        assert await world.read(token) == [1, 2]
        ledger = "SELECT confirmed_lsn >= %s FROM readside.capture WHERE app = %s"
        forgotten = [token.position.lsn, world.app.name]
        while await world.session.query(ledger, forgotten) != [(True,)]:
            await world.write(2)
            await asyncio.sleep(0.05)
        assert await world.reset(give_up=True) == 1
        found = await world.read(await world.write(3))
        assert found[-1] == 3
        assert 1 not in found


async def test_two_at_once_do_not_meet(world: World, run: Any) -> None:
    async with run(world.app):
        await world.read(await world.write(1, 2, 3))
        outcomes = await asyncio.gather(world.reset(), world.reset(), return_exceptions=True)
        assert any(outcome == 1 for outcome in outcomes)
        for outcome in outcomes:
            assert outcome in (0, 1) or isinstance(outcome, readside.RefusedError)
        assert await world.read(await world.write(4)) == [1, 2, 3, 4]


@pytest.mark.parametrize("moment", ["reset.seized", "reset.emptied"])
async def test_one_that_was_interrupted_is_repeated(world: World, run: Any, moment: str) -> None:
    def die(passed: str) -> None:
        if passed == moment:
            raise Died

    async with run(world.app):
        await world.read(await world.write(1, 2, 3))
        with listening(die), pytest.raises(Died):
            await world.reset()
        await world.reset()
        assert await world.read(await world.write(4)) == [1, 2, 3, 4]


class Sleeper:
    """Resets in a thread of its own, where it falls asleep as a whole, and can be woken up."""

    def __init__(self, make_world: Callable[[], World], moment: str) -> None:
        self._make_world = make_world
        self._moment = moment
        self._awake = threading.Event()
        self.asleep = threading.Event()

    def __call__(self, passed: str) -> None:
        if passed == self._moment and not self.asleep.is_set():
            self.asleep.set()
            assert self._awake.wait(120)

    async def reset(self) -> None:
        await asyncio.to_thread(asyncio.run, self._reset())

    async def _reset(self) -> None:
        world = self._make_world()
        try:
            await world.reset()
        finally:
            await world.session.close()
            await world.app.close()

    def wake(self) -> None:
        self._awake.set()


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        ("reset.seized", "slept for too long"),
        ("reset.begun", "Somebody newer works"),
        ("reset.emptied", "slept for too long"),
    ],
)
async def test_one_that_sleeps_for_too_long_removes_nothing_any_more(
    world: World, run: Any, make_app: Any, moment: str, reason: str
) -> None:
    settings = world.app.settings

    def again() -> World:
        return World(make_app(settings.broker, read_store=settings.read_store))

    sleeper = Sleeper(again, moment)
    async with run(world.app):
        assert await world.read(await world.write(1, 2, 3)) == [1, 2, 3]
        with listening(sleeper):
            resetting = asyncio.create_task(sleeper.reset())
            assert await asyncio.to_thread(sleeper.asleep.wait, 60)
            await world.expire()
            assert await world.read(await world.write(4)) == [1, 2, 3, 4]
            await world.spoil("b")
            sleeper.wake()
            with pytest.raises(FencedError, match=reason):
                await resetting
        assert await world.parked() == ["b"]
        assert await world.read(await world.write(5)) == [1, 2, 3, 4, 5]
        await world.reset()
        assert await world.read(await world.write(6)) == [1, 2, 3, 4, 5, 6]


async def test_a_store_that_knows_higher_tokens_is_outbid(world: World, run: Any) -> None:
    async with run(world.app):
        assert await world.read(await world.write(1)) == [1]
    await world.know(50)
    async with run(world.app):
        assert await world.read(await world.write(2)) == [1, 2]
    await world.know(0)
    assert await world.reset() == 1
    async with run(world.app):
        assert await world.read(await world.write(3)) == [1, 2, 3]


async def test_one_that_sleeps_while_the_notes_are_restored_removes_nothing(
    world: World, run: Any, make_app: Any
) -> None:
    """Then a newer owner may get the very token that the sleeper has."""
    settings = world.app.settings
    sleeper = Sleeper(
        lambda: World(make_app(settings.broker, read_store=settings.read_store)), "reset.seized"
    )
    async with run(world.app):
        assert await world.read(await world.write(1, 2, 3)) == [1, 2, 3]
    with listening(sleeper):
        resetting = asyncio.create_task(sleeper.reset())
        assert await asyncio.to_thread(sleeper.asleep.wait, 60)
        query = "SELECT token, count(*) FROM readside.leases WHERE app = %s GROUP BY 1"
        held = await world.session.query(query, [world.app.name])
        await world.know(held[0][0] - 1)
        await world.expire()
        async with run(world.app):
            assert await world.read(await world.write(4)) == [1, 2, 3, 4]
            assert await world.session.query(query, [world.app.name]) == held
            await world.spoil("b")
            sleeper.wake()
            with pytest.raises(FencedError, match="slept for too long"):
                await resetting
            assert await world.parked() == ["b"]
            assert await world.read(await world.write(5)) == [1, 2, 3, 4, 5]


async def test_a_renewal_that_fails_is_tried_again(
    world: World, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("readside.operate.reset.HELD", 2.0)
    monkeypatch.setattr("readside.operate.reset._RENEW_EVERY", 0.5)
    slow = asyncio.Event()
    store = await (await world.app.runtime()).store()

    class Slow:
        async def reset(self, *given: Any) -> int:
            slow.set()
            await asyncio.sleep(5.0)
            return await store.reset(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    async with run(world.app):
        assert await world.read(await world.write(1, 2, 3)) == [1, 2, 3]
        resetting = asyncio.create_task(
            reset(world.session, world.app.name, world.name, Slow(), give_up=False)  # type: ignore[arg-type]
        )
        await slow.wait()
        other = Session(world.app.settings.write_store, "other")
        await other.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'readside test' AND pid <> pg_backend_pid()"
        )
        await other.close()
        assert (await resetting).removed == 1
        assert await world.read(await world.write(4)) == [1, 2, 3, 4]


async def test_what_was_forgotten_keeps_nothing_back(world: World, run: Any) -> None:
    query = "SELECT projection FROM readside.projections WHERE app = %s ORDER BY 1"
    async with run(world.app):
        assert await world.read(await world.write(1)) == [1]
        await world.session.query(
            "INSERT INTO readside.projections (app, projection) VALUES (%s, 'gone')",
            [world.app.name],
        )
        assert await forget(world.session, world.app.name, "gone", None) == 0
        assert await world.session.query(query, [world.app.name]) == [(world.name,)]
    store = await (await world.app.runtime()).store()
    assert await forget(world.session, world.app.name, world.name, store) == 1
    assert await world.session.query(query, [world.app.name]) == []
    assert await world.numbers.get("a") is None
    with pytest.raises(readside.ReadsideError, match="has no projection"):
        await world.reset()
