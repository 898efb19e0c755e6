"""``readside servers``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from readside.adapters.embedded import EmbeddedServers


async def serve(directory: Path, *, json: bool) -> int:
    """Run the embedded servers until cancelled."""
    async with EmbeddedServers(directory) as addresses:
        if json:
            print(msgspec.json.encode(addresses).decode(), flush=True)
        else:
            print(f"READSIDE_WRITE_STORE={addresses.write_store}")
            print(f"READSIDE_BROKER={addresses.broker}")
            print(f"READSIDE_READ_STORE={addresses.read_store}")
            print(f"data in {directory}; Ctrl-C ends them", flush=True)
        await asyncio.Event().wait()
    return 0
