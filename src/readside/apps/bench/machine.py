"""The machine and the servers: figures mean something beside them only."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from readside import __version__
from readside.adapters.postgres.connection import opened
from readside.apps.bench.places import Places

#: Processes that want to run, beside which a measurement is still one.
_QUIET = 0.3


async def machine(places: Places) -> dict[str, Any]:
    """Describe where the bench runs, before it loads anything."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(load(), 2),
        "python": platform.python_version(),
        "event_loop": _event_loop(),
        "readside": __version__,
        "postgresql": await _postgresql(places.write_store),
        "nats": await _nats(places.broker) if places.broker else None,
        "read_store": await _read_store(places.read_store),
        "embedded": sorted(places.servers),
    }


def load() -> float:
    """How many processes wanted to run in the last minute."""
    return os.getloadavg()[0]


def warning(load_before: float) -> str:
    """What to say if others use this machine; empty if it is quiet."""
    if load_before <= _QUIET * (os.cpu_count() or 1):
        return ""
    return (
        f"this machine is not quiet (load {load_before:.2f} on {os.cpu_count()} cores before the bench):"
        " trust the ratios, and repeat for the figures"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _event_loop() -> str:
    import importlib.util  # noqa: PLC0415 - asked once

    return "uvloop" if importlib.util.find_spec("uvloop") else f"asyncio {sys.platform}"


async def _postgresql(dsn: str) -> str:
    async with opened(dsn, "bench") as connection:
        row = await (await connection.execute("SHOW server_version")).fetchone()
    return str(row[0]) if row else ""


async def _nats(url: str) -> str:
    import nats  # noqa: PLC0415 - an extra

    client = await nats.connect(url)
    try:
        return str(client.connected_server_version).strip("<>").rpartition(" v")[2]
    finally:
        await client.close()


async def _read_store(url: str) -> str:
    client: Redis = Redis.from_url(url)
    try:
        found = await client.info("server")
    finally:
        await client.aclose()
    if "valkey_version" in found:
        return f"Valkey {found['valkey_version']}"
    return f"Redis {found.get('redis_version')}"
