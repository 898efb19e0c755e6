"""Whether records have travelled in frames: without them, a run with frames proves nothing of them."""

from __future__ import annotations

import nats

from chaos.wipes import STREAM
from chaos.world import World


async def count(world: World) -> int:
    """Frames in the stream now, when nothing fails any more."""
    client = await nats.connect(world.servers.address("nats"))
    try:
        manager = client.jetstream()
        found = await manager.stream_info(STREAM, subjects_filter="chaos.*.$frame")
    finally:
        await client.close()
    return sum((found.state.subjects or {}).values())
