"""Frames on a real server: beside plain messages, read in part, and among what nobody can read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import nats
import pytest

import readside
from readside.adapters.nats.broker import NatsBroker
from readside.core.batching import Limits
from readside.core.chain import Head, Verdict, sift
from readside.core.errors import SettingsError
from readside.core.record import Record
from readside.testing.conformance.broker_ground import (
    BRIEFLY,
    LIMITS,
    bare,
    record,
    records,
    take,
)


class Place:
    """An app's log, and brokers of both kinds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app = f"t{uuid4().hex[:10]}"
        self._made: list[Any] = []

    async def broker(self, frames: str) -> NatsBroker:
        made = NatsBroker(f"{self.url}?frames={frames}")
        self._made.append(made)
        await made.open(self.app, 4)
        return made

    async def raw(self) -> Any:
        client = await nats.connect(self.url)
        self._made.append(client)
        return client

    async def subjects(self) -> list[str]:
        """The subjects of all messages, without the app."""
        stream = (await self.raw()).jetstream()
        state = (await stream.stream_info(f"readside_{self.app}")).state
        numbers = range(1, state.last_seq + 1)
        found = [await stream.get_msg(f"readside_{self.app}", number) for number in numbers]
        return [one.subject.partition(".")[2] for one in found]

    async def close(self) -> None:
        for made in self._made:
            await made.close()


@pytest.fixture
async def place(servers: Any) -> AsyncIterator[Place]:
    made = Place(servers.broker)
    yield made
    await made.close()


async def test_both_kinds_are_read_from_one_stream(place: Place) -> None:
    readers = [await (await place.broker(kind)).subscribe(0, "") for kind in ("off", "on")]
    for kind, first, last in (("off", 1, 2), ("on", 3, 5), ("on", 6, 6), ("off", 7, 8)):
        await (await place.broker(kind)).publish(records(first, last))
    assert await place.subjects() == [
        *["0.thing.done"] * 2, "0.$frame", "0.thing.done", *["0.thing.done"] * 2,
    ]  # fmt: skip
    for reader in readers:
        assert bare(await take(reader, 8)) == records(1, 8)
        await reader.close()


async def test_one_message_a_partition(place: Place) -> None:
    framed = await place.broker("on")
    await framed.publish([record(nth, number) for nth in range(1, 300) for number in (3, 0, 2)])
    await framed.publish([record(300, 0), record(1, 1), record(301, 0)])
    assert await place.subjects() == ["3.$frame", "0.$frame", "2.$frame", "0.$frame", "1.thing.done"]  # fmt: skip


async def test_a_relay_of_one_kind_follows_one_of_the_other(place: Place) -> None:
    for first, kind in ((1, "on"), (11, "off"), (21, "on")):
        relay = await place.broker(kind)
        if first > 1:
            assert await relay.tails() == {0: record(first - 1).position}
        await relay.publish(records(first, first + 9))
        await relay.publish(records(first + 5, first + 9))  # uncertain, and published again
        assert await relay.tails() == {0: record(first + 9).position}


async def test_whoever_goes_on_within_a_frame_applies_each_record_once(place: Place) -> None:
    framed = await place.broker("on")
    await framed.publish([record(1, 1), record(2, 1), *records(1, 3)])
    await framed.publish([record(3, 1), *records(4, 9), record(4, 1)])
    reader = await framed.subscribe(0, "")
    found = await take(reader, 5, Limits(records=5))
    await reader.close()
    assert bare(found) == records(1, 5)
    later = await framed.subscribe(0, found[-1].offset)
    again = await take(later, 6)
    await later.close()
    assert bare(again) == records(4, 9)
    fresh, _, verdict = sift(Head(found[-1].position, found[-1].nth), again)
    assert (bare(fresh), verdict) == (records(6, 9), Verdict.NEXT)
    # Also where it was the last of its frame, and the very last of the log.
    for at, rest in ((found[2], records(4, 9)), (again[-1], [])):
        later = await framed.subscribe(0, at.offset)
        assert bare(await take(later, len(rest))) == rest
        assert (await later.read(LIMITS, BRIEFLY)).records == []
        await later.close()


@pytest.mark.parametrize(
    "limits",
    [Limits(records=1), Limits(records=7), Limits(size=1), Limits(size=95), Limits(10, 60)],
)
async def test_a_frame_that_is_larger_than_the_limits_comes_in_parts(
    place: Place, limits: Limits
) -> None:
    sent = [one._replace(payload=b'"23456789"') for one in records(1, 50)]
    framed = await place.broker("on")
    await framed.publish(sent[:40])
    await framed.publish(sent[40:41])
    await framed.publish(sent[41:])
    assert len(await place.subjects()) == 3
    reader = await framed.subscribe(0, "")
    await take(reader, 0)
    found: list[Record] = []
    while len(found) < 50:
        some = (await reader.read(limits, 5.0)).records
        assert 0 < len(some) <= limits.records
        # The one that goes beyond is the last.
        assert sum(len(one.payload) for one in some[:-1]) < limits.size
        found += some
    assert bare(found) == sent
    assert (await reader.read(limits, BRIEFLY)).records == []
    await reader.close()


async def test_an_unreadable_frame_is_passed_over(place: Place, caplog: Any) -> None:
    framed = await place.broker("on")
    await framed.publish(records(1, 3))
    foreign = (await place.raw()).jetstream()
    await foreign.publish(f"{place.app}.0.$frame", b"\xdd\xff\xff\xff\xff")
    await foreign.publish(f"{place.app}.0.$frame", msgspec.msgpack.encode([2, "of a later form"]))
    caplog.set_level(logging.WARNING)
    assert await framed.tails() == {}, "as if it held nothing"
    assert "A message on the stream is not readside's" in caplog.text
    caplog.clear()
    reader = await framed.subscribe(0, "")
    # Another publisher on the stream makes a batch uncertain; ours are there all the same.
    with pytest.raises(readside.ReadsideError):
        await framed.publish(records(4, 9))
    found = await take(reader, 9)
    assert bare(found) == records(1, 9)
    assert caplog.text.count(f"passed over on {place.app}.0.$frame") == 2
    assert await framed.tails() == {0: record(9).position}
    await reader.close()


async def test_what_waits_to_be_read_is_bounded_by_bytes(place: Place) -> None:
    """Whatever the largest message may be that the server takes."""
    framed = await place.broker("on")
    sent = [one._replace(payload=b'"%s"' % (b"x" * 6000)) for one in records(1, 4000)]
    reader: Any = await framed.subscribe(0, "")
    for start in range(0, len(sent), 1000):
        await framed.publish(sent[start : start + 1000])
    found: list[Record] = []
    most = 0
    while len(found) < len(sent):
        found += (await reader.read(Limits(records=10), 5.0)).records
        most = max(most, sum(len(payload) for _, _, payload, _ in reader._messages))
    assert bare(found) == sent
    assert 250_000 < most < 1_500_000
    await reader.close()


@pytest.mark.parametrize("kind", ["off", "on"])
async def test_a_message_larger_than_what_is_asked_for_comes(place: Place, kind: str) -> None:
    large = b'"%s"' % (b"x" * 3_000_000)
    sent = [
        one._replace(payload=large) if one.nth in (1, 2, 60) else one for one in records(1, 100)
    ]
    broker = await place.broker(kind)
    reader = await broker.subscribe(0, "")
    await broker.publish(sent)
    assert bare(await take(reader, 100)) == sent
    await reader.close()


@pytest.mark.parametrize("query", ["frames=", "frames=1", "frames=yes", "frame=on"])
def test_the_option_is_on_or_off(query: str) -> None:
    with pytest.raises(SettingsError, match="frame"):
        NatsBroker(f"nats://127.0.0.1:4222?{query}")


class Counted(readside.Event, key="id"):
    id: str
    number: int


class Numbers(readside.View):
    numbers: list[int]


async def test_the_setting_can_be_switched_between_relays(
    make_app: Any, run: Any, servers: Any
) -> None:
    name = f"t{uuid4().hex[:10]}"
    written = 0
    for kind in ("on", "off", "on"):
        app = make_app(f"{servers.broker}?frames={kind}", name)
        view = app.projection(f"{name}-numbers", Numbers)

        @view.on
        def counted(event: Counted, found: Numbers | None) -> Numbers:
            return Numbers([*(found.numbers if found else []), event.number])

        async def write(app: readside.App, first: int) -> readside.Token:
            async with app.transaction() as tx:
                tx.record(
                    *(Counted(key, n) for n in range(first, first + 40) for key in ("a", "b"))
                )
            return tx.token

        async with run(app):
            await write(app, written)
            token = await write(app, written + 40)
            written += 80
            for key in ("a", "b"):
                found = await view.get(key, after=token, timeout=20.0)
                assert found == Numbers(list(range(written)))
        await app.close()
    place = Place(servers.broker)
    place.app = name
    kinds = {subject.partition(".")[2] for subject in await place.subjects()}
    await place.close()
    assert kinds == {"$frame", "counted"}
