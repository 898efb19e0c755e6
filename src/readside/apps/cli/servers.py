"""``readside servers``."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from readside.adapters.embedded import Addresses, EmbeddedServers
from readside.apps import hints
from readside.apps.journal import journal

_LOOK_EVERY = 0.5


async def serve(directory: Path, *, json: bool) -> int:
    """Run the embedded servers until cancelled; one that dies is started again."""
    journal(logging.INFO, "%(message)s")
    group = EmbeddedServers(directory)
    async with group as addresses:
        if json:
            print(msgspec.json.encode(addresses).decode(), flush=True)
        else:
            _tell(addresses)
        if group.attached:
            return 0
        logging.getLogger("readside").info(
            "they run until Ctrl-C, with their data in %s", directory
        )
        while True:
            await group.revive()
            await asyncio.sleep(_LOOK_EVERY)


def _tell(addresses: Addresses) -> None:
    write_store, broker, read_store = (
        addresses.write_store,
        addresses.broker,
        addresses.read_store,
    )
    lines = [
        "",
        "use them elsewhere:",
        f"  export READSIDE_WRITE_STORE={write_store}",
        f"  export READSIDE_BROKER={broker}",
        f"  export READSIDE_READ_STORE={read_store}",
        "have a look:",
        f"  {hints.psql(write_store)}",
        f"  {hints.nats(broker, 'stream', 'ls')}",
        f"  {hints.valkey(read_store)}",
    ]
    if missing := hints.missing_clients():
        lines.append(f"  ({missing})")
    print("\n".join(lines), flush=True)
