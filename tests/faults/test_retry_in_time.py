"""A retry may not overtake events that the projector has to apply again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import readside
from readside.adapters.postgres.session import Session
from readside.core.folding import Batch, Stored, Write
from readside.core.partition import partition_of
from readside.operate.dead_letters import DeadLetters
from readside.ports.probe import listening
from readside.ports.store import Outcome, Store


class Added(readside.Event, key="id", type="retry.added"):
    id: str
    number: int


class Numbers(readside.View):
    numbers: list[int]


#: Numbers that cannot be taken; each mend takes away the first.
FAILING = (3, 5)


class Died(Exception):  # noqa: N818 - what happened, not an error
    """The process was killed here."""


@pytest.fixture
async def world(make_app: Any, broker_url: str, store_url: str) -> Any:
    app = make_app(broker_url, read_store=store_url)
    mended: list[bool] = []
    numbers = app.projection(f"{app.name}-numbers", Numbers)

    @numbers.on
    def added(event: Added, view: Numbers | None) -> Numbers:
        if event.number in FAILING[len(mended) :]:
            raise ValueError(event.number)
        return Numbers([*(view.numbers if view else []), event.number])

    await (await app.runtime()).install()
    yield app, numbers, mended
    await app.close()


async def discard(app: Any) -> None:
    session = Session((await (await app.runtime()).addresses()).write_store, "discard")
    letters = DeadLetters(session, app.name)
    try:
        for document in await letters.find():
            assert await letters.discard(document, whole=False) == 1
    finally:
        await letters.close()


async def retry(app: Any, numbers: Any) -> list[str]:
    runtime = await app.runtime()
    session = Session((await runtime.addresses()).write_store, "retry")
    letters = DeadLetters(session, app.name)
    try:
        store = await runtime.store()
        return [
            (await letters.retry(document, numbers, store)).error
            for document in await letters.find()
        ]
    finally:
        await letters.close()


async def die_between_parking_and_applying(app: Any, run: Any) -> None:
    parked = asyncio.Event()

    def die(moment: str) -> None:
        if moment == "projector.parked":
            parked.set()
            raise Died

    async with app.transaction() as tx:
        tx.record(*(Added("a", number) for number in (1, 2, 3, 4)))
    with listening(die):
        async with run(app):
            await parked.wait()


async def test_a_retry_waits_for_what_was_to_be_applied_before(world: Any, run: Any) -> None:
    app, numbers, mended = world
    await die_between_parking_and_applying(app, run)
    mended += [True, True]
    (error,) = await retry(app, numbers)
    assert "still has to bring what comes before" in error
    async with run(app):
        while any(await retry(app, numbers)):
            pass
        async with app.transaction() as tx:
            tx.record(Added("a", 5))
        assert await numbers.get("a", after=tx.token, timeout=60) == Numbers([1, 2, 3, 4, 5])


async def test_what_follows_a_discarded_event_waits_for_what_that_has_waited_for(
    world: Any, run: Any
) -> None:
    app, numbers, mended = world
    await die_between_parking_and_applying(app, run)
    await discard(app)
    mended += [True, True]
    (error,) = await retry(app, numbers)
    assert "still has to bring what comes before" in error
    async with run(app):
        while any(await retry(app, numbers)):
            pass
        async with app.transaction() as tx:
            tx.record(Added("a", 5))
        # The discarded event is in the batch that the projector repeats, and comes again with it.
        assert await numbers.get("a", after=tx.token, timeout=60) == Numbers([1, 2, 3, 4, 5])


async def test_a_retry_that_dies_while_it_frees_can_be_repeated(world: Any, run: Any) -> None:
    app, numbers, mended = world

    def die(moment: str) -> None:
        if moment == "dead_letters.freed":
            raise Died

    async with run(app):
        async with app.transaction() as tx:
            tx.record(*(Added("a", number) for number in (1, 2, 3, 4)))
        with pytest.raises(readside.ParkedError):
            await numbers.get("a", after=tx.token, timeout=60)
        mended += [True, True]
        with listening(die), pytest.raises(Died):
            await retry(app, numbers)
        assert await retry(app, numbers) == [""]
        assert await numbers.get("a", after=tx.token, timeout=60) == Numbers([1, 2, 3, 4])


async def lose_write(app: Any, store: Store, projection: str, key: str, before: Stored) -> None:
    """Let a document be as it was, as a server that crashes before it has written to disk does."""
    (now,) = await store.load(projection, [key])
    assert now != before
    write = Write(key, now.positions, before.positions, before.document)
    partition = partition_of(key, app.settings.partitions)
    assert await store.apply(Batch(projection, partition, None, None, (write,))) is Outcome.APPLIED


async def test_a_retry_brings_again_what_the_store_lost_of_an_earlier_one(
    world: Any, run: Any
) -> None:
    app, numbers, mended = world
    store = await (await app.runtime()).store()
    async with run(app):
        async with app.transaction() as tx:
            tx.record(*(Added("a", number) for number in (1, 2, 3, 4, 5, 6)))
        with pytest.raises(readside.ParkedError):
            await numbers.get("a", after=tx.token, timeout=60)
        (before,) = await store.load(numbers.name, ["a"])
        mended.append(True)
        assert "5" in "".join(await retry(app, numbers))
        await lose_write(app, store, numbers.name, "a", before)
        mended.append(True)
        assert await retry(app, numbers) == [""]
        assert await numbers.get("a", after=tx.token, timeout=60) == Numbers([1, 2, 3, 4, 5, 6])
