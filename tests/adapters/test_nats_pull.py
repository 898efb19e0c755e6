"""What a reader asks of a real server, and what the server does with it: no end of a pull is missed."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from readside.adapters.embedded.locate import nats_server
from readside.adapters.nats import subscription as module
from readside.adapters.nats.broker import NatsBroker
from readside.core.batching import Limits
from readside.core.errors import UnavailableError
from readside.core.record import Record, Watermark
from readside.testing.conformance.broker_ground import LIMITS, PATIENCE, bare, record, records, take

NEVER = 1e9


@pytest.fixture
async def broker(servers: Any, unique: str) -> AsyncIterator[NatsBroker]:
    made = NatsBroker(servers.broker)
    await made.open(unique, 4)
    yield made
    await made.close()


@asynccontextmanager
async def watermarks(broker: NatsBroker) -> AsyncIterator[None]:
    """Say every 0.1 s how far the relay is, as it does."""

    async def announce() -> None:
        while True:
            await broker.announce([Watermark(0, record(1).position, 1, record(1).position)])
            await asyncio.sleep(0.1)

    task = asyncio.create_task(announce())
    try:
        yield
    finally:
        task.cancel()


async def sizes(broker: NatsBroker, count: int) -> list[int]:
    """What the server counts for each message."""
    reader: Any = await broker.subscribe(0, "")
    async with asyncio.timeout(PATIENCE):
        while len(reader._messages) < count:
            await asyncio.sleep(0.01)
    found = [sum(map(len, message)) for message in reader._messages]
    await reader.close()
    return found


async def read_all(reader: Any, count: int, seconds: float) -> list[Record]:
    """Read, with an eye on the credit."""
    found: list[Record] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += (await reader.read(LIMITS, 0.5)).records
            assert 0 <= reader._outstanding <= module._CREDIT
            assert reader._outstanding_bytes >= 0
    return found


@pytest.mark.parametrize("exactly", [1, 7, 10, 29])
async def test_a_pull_that_is_used_up_exactly_ends(
    broker: NatsBroker, monkeypatch: Any, exactly: int
) -> None:
    """The server says nothing then, and watermarks hide its silence."""
    await broker.publish(records(10, 39))
    counted = await sizes(broker, 30)
    monkeypatch.setattr(module, "_CREDIT_BYTES", sum(counted[:exactly]))
    monkeypatch.setattr(module, "_SILENCE", NEVER)  # the count alone has to find it
    reader = await broker.subscribe(0, "")
    async with watermarks(broker):
        assert bare(await read_all(reader, 30, PATIENCE)) == records(10, 39)
        await broker.publish(records(40, 49))
        assert bare(await read_all(reader, 10, PATIENCE)) == records(40, 49)
    await reader.close()


async def test_the_count_is_the_servers_own(broker: NatsBroker, monkeypatch: Any) -> None:
    """Also where pulls overlap, end for their size, or bring one message that is larger."""
    monkeypatch.setattr(module, "_CREDIT", 64)
    monkeypatch.setattr(module, "_CREDIT_BYTES", 9_000)
    monkeypatch.setattr(module, "_HEARTBEAT_NS", 200_000_000)
    monkeypatch.setattr(module, "_EXPIRES_NS", 1_000_000_000)
    monkeypatch.setattr(module, "_SILENCE", NEVER)
    reader: Any = await broker.subscribe(0, "")
    spend, over = reader._spend, []

    def watch(messages: int, size: int) -> None:
        over.append(min(0, reader._outstanding_bytes - size, reader._outstanding - messages))
        spend(messages, size)

    monkeypatch.setattr(reader, "_spend", watch)
    sent = [
        one._replace(payload=b'"%s"' % (b"x" * (40_000 if one.nth % 50 == 0 else one.nth % 700)))
        for one in records(1, 800)
    ]
    publishing = asyncio.ensure_future(broker.publish(sent))
    assert bare(await take(reader, 800, Limits(records=9))) == sent
    await publishing
    async with asyncio.timeout(PATIENCE):
        while reader._outstanding_bytes:  # the last pulls expire, and nothing is left over
            await asyncio.sleep(0.05)
    assert (reader._outstanding, set(over)) == (0, {0})
    await reader.close()


async def test_only_a_refusal_for_size_makes_the_next_pull_wide(
    broker: NatsBroker, monkeypatch: Any
) -> None:
    """The end of a pull that was used up by count is a 409 as well."""
    monkeypatch.setattr(module, "_CREDIT", 4)
    reader: Any = await broker.subscribe(0, "")
    await broker.publish(records(1, 200))
    wide = []
    async with asyncio.timeout(PATIENCE):
        for _ in range(200):
            while not (await reader.read(Limits(records=1), 0.5)).records:
                pass
            await asyncio.sleep(0.002)
            wide.append(reader._wide)
    assert not any(wide)
    await reader.close()


async def test_a_wrong_count_is_found_by_silence(broker: NatsBroker, monkeypatch: Any) -> None:
    await broker.publish(records(10, 39))
    monkeypatch.setattr(module, "_CREDIT_BYTES", sum((await sizes(broker, 30))[:10]))
    reader: Any = await broker.subscribe(0, "")
    reader._outstanding_bytes += 1  # as where an import between accounts makes a subject shorter
    async with watermarks(broker):
        began = time.monotonic()
        assert bare(await read_all(reader, 30, PATIENCE)) == records(10, 39)
        assert time.monotonic() - began > module._SILENCE
    await reader.close()


async def test_a_consumer_that_is_gone_is_noticed_among_watermarks(
    broker: NatsBroker, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.4)
    monkeypatch.setattr(module, "_HEARTBEAT_NS", 100_000_000)
    reader: Any = await broker.subscribe(0, "")
    # Its words do not come any more, as if the node that held it were gone.
    await reader._handles[0].unsubscribe()
    async with watermarks(broker):
        with pytest.raises(UnavailableError, match="went silent"):
            await read_all(reader, 1, PATIENCE)
    await reader.close()


async def test_who_slept_goes_on(broker: NatsBroker, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.4)
    monkeypatch.setattr(module, "_HEARTBEAT_NS", 100_000_000)
    reader = await broker.subscribe(0, "")
    async with watermarks(broker):
        for first in (1, 11, 21):
            time.sleep(1.5)  # noqa: ASYNC251 - nobody in the process can listen
            for _ in range(3):
                assert (await reader.read(LIMITS, 0)).records == []
            await broker.publish(records(first, first + 9))
            assert bare(await take(reader, 10)) == records(first, first + 9)
    await reader.close()


async def test_a_watermark_waits_until_everything_before_it_was_read(broker: NatsBroker) -> None:
    reader: Any = await broker.subscribe(0, "")
    await broker.publish(records(1, 10))
    said = Watermark(0, record(10).position, 10, record(10).position)
    async with asyncio.timeout(PATIENCE):
        while len(reader._messages) < 10 or reader._watermark is None:
            await broker.announce([said])
            await asyncio.sleep(0.02)
    heard = [await reader.read(Limits(records=4), 0) for _ in range(3)]
    assert [(len(one.records), one.watermark) for one in heard] == [(4, None), (4, None), (2, said)]
    await reader.close()


@contextmanager
def server(home: Path, port: int, max_payload: int) -> Iterator[str]:
    """A NATS server of its own, on a log that outlives it."""
    configuration = home / "nats.conf"
    configuration.write_text(
        f'listen: "127.0.0.1:{port}"\nmax_payload: {max_payload}\njetstream {{ store_dir: "{home}" }}\n'
    )
    process = subprocess.Popen(
        [nats_server(), "-c", configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


async def opened(url: str, app: str) -> NatsBroker:
    broker = NatsBroker(url)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await broker.open(app, 1)
            except UnavailableError:
                await asyncio.sleep(0.1)
            else:
                return broker


async def test_what_was_stored_under_a_higher_max_payload_is_read(
    tmp_path: Path, unique: str
) -> None:
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    large = b'"%s"' % (b"x" * 3_000_000)
    sent = [one._replace(payload=large) if one.nth in (2, 3, 9) else one for one in records(1, 20)]
    with server(tmp_path, port, 8 * 1024 * 1024) as url:
        broker = await opened(url, unique)
        await broker.publish(sent)
        await broker.close()
    with server(tmp_path, port, 1024 * 1024) as url:
        broker = await opened(url, unique)
        reader = await broker.subscribe(0, "")
        assert bare(await take(reader, 20)) == sent
        await reader.close()
        await broker.close()
