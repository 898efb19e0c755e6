"""The limit: PostgreSQL's own client reads the backlog to nowhere."""

from __future__ import annotations

import asyncio
import os
import time
from asyncio.subprocess import DEVNULL, PIPE

from psycopg import conninfo

from readside.apps.bench.backlog import Filled, Ground
from readside.core.errors import UnavailableError
from readside.core.position import format_lsn


async def limit(ground: Ground, filled: Filled) -> float:
    """Events a second that pg_recvlogical takes, with the publication and options of the relay."""
    async with ground.copied() as slot:
        seconds = await _drain(ground, slot, filled.end)
    return filled.events_before_end / seconds


async def _drain(ground: Ground, slot: str, end: int) -> float:
    parameters = conninfo.conninfo_to_dict(ground.places.write_store)
    password = parameters.pop("password", None)  # others may see our arguments, not our environment
    process = await asyncio.create_subprocess_exec(
        ground.places.pg_recvlogical,
        "-d", conninfo.make_conninfo("", **parameters), "-S", slot,
        "--start", "--no-loop", "--verbose", "-f", "-", f"--endpos={format_lsn(end)}",
        "-o", "proto_version=2", "-o", f"publication_names={ground.names.publication}",
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
        env=os.environ | ({"PGPASSWORD": str(password)} if password else {}),
    )  # fmt: skip
    said: list[str] = []
    began = None
    try:
        assert process.stderr is not None  # noqa: S101 - asked for above
        async for line in process.stderr:
            said.append(line.decode(errors="replace").strip())
            if "streaming initiated" in said[-1]:
                began = time.perf_counter()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code or began is None:
        raise UnavailableError(f"pg_recvlogical failed: {' '.join(said[-3:])}")
    return time.perf_counter() - began
