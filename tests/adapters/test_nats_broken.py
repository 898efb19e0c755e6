"""A connection to NATS that breaks while something waits to be written, on the loop of `readside run`."""

from __future__ import annotations

import asyncio
import logging

import pytest
import uvloop
from nats.errors import Error as NatsError

from readside.adapters.nats.express import Express


def test_it_ends_without_an_error_of_its_own(servers, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        client = Express()
        closed = asyncio.Event()

        async def told(error: Exception) -> None:
            assert isinstance(error, (OSError, NatsError)), error

        async def note() -> None:
            closed.set()

        await client.connect(servers.broker, allow_reconnect=False, error_cb=told, closed_cb=note)
        client._pending.append(b"PUB somewhere 1\r\nx\r\n")
        client._pending_data_size += 1
        client._transport._io_writer.transport.abort()
        async with asyncio.timeout(20):
            await closed.wait()
        assert client.is_closed

    with caplog.at_level(logging.WARNING):
        uvloop.run(story())
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
