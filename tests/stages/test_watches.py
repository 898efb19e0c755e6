"""Those who wait until a projection has what was written, in memory and in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from readside.adapters.memory.store import MemoryStore
from readside.core.errors import (
    HistoryLostError,
    ParkedError,
    RefusedError,
    StaleReadError,
    UnavailableError,
)
from readside.core.folding import Batch
from readside.core.partition import partition_of
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.core.token import Token
from readside.query.watches import Wanted, Watches
from readside.testing.clock import run
from readside.testing.faults import Life, gated
from readside.testing.workload import Spoiled, Wrote, projections
from readside.testing.world import Shape, World


class Counting:
    """A gate that counts calls, and how many are under way at once."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.under_way = self.most = 0

    async def before(self, call: str) -> None:
        self.calls[call] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.0005)  # a round trip

    async def after(self, call: str) -> None:
        self.under_way -= 1


class Stand:
    """A pipeline, and an application which waits."""

    def __init__(self, shape: Shape | None = None, *names: str) -> None:
        every = projections()
        self.names = names or ("trail",)
        self.world = World({name: every[name] for name in self.names}, shape or Shape())
        self.counting = Counting()
        self.life = Life(self.counting)
        self.opened = 0
        self.watches = Watches(self.store, self.world.clock)

    async def store(self) -> Any:
        self.opened += 1
        store = gated(MemoryStore(self.world.library), "store", self.life)
        await store.open(self.world.app)
        return store

    def commit(self, *events: Any) -> Token:
        transaction = self.world.database.commit(*events)
        notes = self.world.database.tables.notes
        partitions = {partition_of(event.id, self.world.shape.partitions) for event in events}
        position = Position(notes.epoch if notes else 0, transaction.end, 0)
        return Token(position, tuple(sorted(partitions)))

    async def wait(self, token: Token, *keys: str, timeout: float = 60.0) -> dict[str, Any]:
        wanted = dict.fromkeys(self.names, Wanted(token, keys))
        return await self.watches.wait(wanted, timeout)

    def has(self, token: Token) -> bool:
        return all(
            number in found and found[number].position >= token.position
            for found in map(self.world.checkpoints, self.names)
            for number in token.partitions
        )

    async def close(self) -> None:
        await self.watches.close()
        await self.world.close()


def test_who_waits_goes_on_when_every_projection_has_it(direct):
    async def story():
        stand = Stand(Shape(direct=direct), "trail", "last")
        stand.world.start()
        for number in range(20):
            token = stand.commit(Wrote(f"{number % 3}", number, "-"), Wrote("x", 100 + number, "-"))
            assert await stand.wait(token) == {}
            assert stand.has(token)
        assert stand.opened == 2 * 20
        await stand.close()

    run(story())


def test_fifty_who_wait_ask_no_more_than_one_does():
    async def told(waiting: int) -> int:
        stand = Stand(Shape(partitions=8))
        stand.world.start()
        assert await stand.wait(stand.commit(Wrote("first", 0, "-"))) == {}
        stand.counting.calls.clear()
        tokens = [stand.commit(Wrote(f"{n}", n, "-")) for n in range(1, waiting + 1)]
        assert await asyncio.gather(*map(stand.wait, tokens)) == [{}] * waiting
        assert all(map(stand.has, tokens))
        assert stand.counting.most == 1
        await stand.close()
        return stand.counting.calls["store.read"]

    async def story():
        assert await told(50) <= 2 * await told(1)

    run(story())


def test_at_the_deadline_it_is_late_and_catches_up():
    async def story():
        stand = Stand(None, "trail", "last")
        token = stand.commit(Wrote("a", 1, "-"))
        began = stand.world.clock.now()
        late = await stand.wait(token, timeout=1.5)
        assert stand.world.clock.now() - began == pytest.approx(1.5)
        assert {name: type(error) for name, error in late.items()} == {
            "trail": StaleReadError,
            "last": StaleReadError,
        }
        assert f"(partitions {token.partitions[0]})" in str(late["trail"])
        stand.world.start()
        assert await stand.wait(token) == {}
        await stand.close()

    run(story())


def test_it_is_logged_once_in_a_while(caplog):
    async def story():
        stand = Stand()
        token = stand.commit(Wrote("a", 1, "-"))
        for _ in range(10):
            assert await stand.wait(token, timeout=1.0)
        assert caplog.text.count("a command went on without projection trail") == 1
        await stand.world.clock.sleep(60)
        assert await stand.wait(token, timeout=1.0)
        assert caplog.text.count("a command went on without projection trail") == 2
        await stand.close()

    run(story())


def test_no_time_means_no_look():
    async def story():
        stand = Stand()
        stand.world.start()
        token = stand.commit(Wrote("a", 1, "-"))
        await stand.world.caught_up()
        late = await stand.wait(token, timeout=0)
        assert isinstance(late["trail"], StaleReadError)
        assert stand.opened == 0
        await stand.close()

    run(story())


def test_a_store_that_is_away_is_told_at_once():
    async def story():
        stand = Stand()
        stand.world.start()
        assert await stand.wait(stand.commit(Wrote("a", 1, "-"))) == {}
        for _ in range(2):  # already open, and not to be opened
            stand.world.library.stop()
            began = stand.world.clock.now()
            token = stand.commit(Wrote("a", 2, "-"))
            assert isinstance((await stand.wait(token))["trail"], UnavailableError)
            assert stand.world.clock.now() - began < 1
            stand.world.library.start()
            assert await stand.wait(token) == {}
        await stand.close()

    run(story())


@pytest.mark.parametrize("opened", [True, False])
def test_a_store_that_hangs_keeps_nobody_beyond_the_deadline(opened):
    async def story():
        stand = Stand()
        stand.world.start()
        if opened:
            assert await stand.wait(stand.commit(Wrote("a", 1, "-"))) == {}
        stand.life.freeze()
        token = stand.commit(Wrote("a", 2, "-"))
        began = stand.world.clock.now()
        for turn in range(1, 4):
            late = await stand.wait(token, timeout=2.0)
            assert isinstance(late["trail"], UnavailableError)
            assert stand.world.clock.now() - began == pytest.approx(2.0 * turn)
        still_there = asyncio.create_task(stand.wait(token))
        await stand.world.clock.sleep(1)
        assert not still_there.done()
        stand.life.thaw()
        assert await still_there == {}
        assert stand.opened <= 2, "one look for all of them"
        await stand.close()

    run(story())


def test_what_nobody_foresaw_is_told_and_does_not_raise():
    async def story():
        clock = World({}).clock

        async def broken() -> Any:
            raise LookupError("out of its mind")

        wanted = {"trail": Wanted(Token(Position(1, 1, 0), (0,)))}
        watches = Watches(broken, clock)
        (error,) = (await watches.wait(wanted, 5.0)).values()
        assert isinstance(error, UnavailableError)
        assert "out of its mind" in str(error)

        async def refused() -> Any:
            raise RefusedError("no password")

        (error,) = (await Watches(refused, clock).wait(wanted, 5.0)).values()
        assert isinstance(error, RefusedError)

    run(story())


def test_a_document_that_is_parked_is_not_there(direct):
    async def story():
        stand = Stand(Shape(partitions=1, direct=direct), "fragile")
        stand.world.start()
        told = await stand.wait(stand.commit(Wrote("a", 1, "-"), Spoiled("a", 2)), "a")
        assert isinstance(told["fragile"], ParkedError)
        assert "fragile:a" in str(told["fragile"])
        assert isinstance(
            (await stand.wait(stand.commit(Wrote("a", 3, "-")), "a"))["fragile"], ParkedError
        )
        assert await stand.wait(stand.commit(Wrote("b", 4, "-")), "b") == {}
        assert await stand.wait(stand.commit(Wrote("a", 5, "-"))) == {}, (
            "nobody asked for documents"
        )
        events = [Wrote(f"{n}", 10 + n, "-") for n in range(40)]
        keys = [event.id for event in events]
        assert await stand.wait(stand.commit(*events), *keys) == {}
        told = await stand.wait(stand.commit(*events, Wrote("a", 60, "-")), *keys, "a")
        assert isinstance(told["fragile"], ParkedError)
        await stand.close()

    run(story())


def test_a_document_that_is_parked_behind_another_partition_is_somebody_elses():
    async def story():
        stand = Stand()
        store = MemoryStore(stand.world.library)
        await store.open(stand.world.app)
        reached = Checkpoint(Position(1, 5, 0), 1, "", 1)
        await store.apply(Batch("trail", 0, None, reached, (), parked=(("x", "p1"),)))
        await store.apply(Batch("trail", 1, None, reached, ()))
        first, other = (Token(Position(1, 5, 0), (number,)) for number in (0, 1))
        found = await asyncio.gather(stand.wait(first, "x"), stand.wait(other, "x"))
        assert isinstance(found[0]["trail"], ParkedError)
        assert found[1] == {}
        await stand.close()

    run(story())


def test_a_lost_projection_is_told():
    async def story():
        stand = Stand()
        store = MemoryStore(stand.world.library)
        await store.open(stand.world.app)
        await store.halt("trail", 0, "gone")
        told = await stand.wait(stand.commit(Wrote("a", 1, "-")))
        assert isinstance(told["trail"], HistoryLostError)
        await stand.close()

    run(story())


def test_a_cancelled_wait_ends_and_leaves_the_others_waiting():
    async def story():
        stand = Stand()
        token = stand.commit(Wrote("a", 1, "-"))
        given_up, other = (asyncio.create_task(stand.wait(token)) for _ in range(2))
        await stand.world.clock.sleep(1)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        stand.world.start()
        assert await other == {}
        await stand.close()

    run(story())


def test_when_the_app_is_closed_who_waits_is_told():
    async def story():
        stand = Stand()
        waiting = asyncio.create_task(stand.wait(stand.commit(Wrote("a", 1, "-"))))
        await stand.world.clock.sleep(1)
        await stand.close()
        assert "closed" in str((await waiting)["trail"])

    run(story())
