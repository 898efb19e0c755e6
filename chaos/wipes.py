"""Takes messages out of the broker's log, and keys out of the read store, behind everybody's back."""

from __future__ import annotations

import asyncio

import nats
import redis.asyncio as redis
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

STREAM = "readside_chaos"
#: Which messages are lost in the middle, counted from the last one.
_MIDDLE = (30, 10)


async def wipe(server: str, kind: str) -> int:
    """Take messages out of the stream; how many."""
    for _ in range(20):
        try:
            client = await nats.connect(server, connect_timeout=1, allow_reconnect=False)
            try:
                return await _take_out(client.jetstream(timeout=2), kind)
            finally:
                await client.close()
        except (NatsError, OSError, TimeoutError):
            await asyncio.sleep(0.25)
    return 0


async def _take_out(manager: JetStreamContext, kind: str) -> int:
    state = (await manager.stream_info(STREAM)).state
    if kind == "messages_lost":
        # Acknowledged, read by nobody, and the newest still there: nothing looks wrong from above.
        last = state.last_seq
        doomed = range(max(state.first_seq, last - _MIDDLE[0]), max(1, last - _MIDDLE[1]))
        return sum([await manager.delete_msg(STREAM, number) for number in doomed])
    act = manager.purge_stream if kind == "stream_purged" else manager.delete_stream
    await act(STREAM)
    return int(state.messages)


async def empty_keys(url: str) -> int:
    """Take all keys out of the read store; how many."""
    for _ in range(40):
        try:
            async with redis.Redis.from_url(url, socket_timeout=2, retry=None) as client:
                gone = await client.dbsize()
                await client.flushall()
                return int(gone)
        except redis.RedisError:
            await asyncio.sleep(0.1)
    return 0
