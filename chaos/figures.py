"""Resources before and after: memory, files, connections, slots, WAL, temporary files, growing tables."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis

from chaos.process import Child
from chaos.timeline import say
from chaos.world import World

#: Tables of readside which could grow without an end.
_TABLES = (
    "outbox",
    "leases",
    "workers",
    "progress",
    "rewinds",
    "parked_documents",
    "parked_events",
    "capture",
)
#: Bytes of WAL that a slot may always need.
_LITTLE = 16 * 1024**2
_NAMES = (
    "connections",
    "slots",
    "wal_bytes",
    # From where the slot still needs WAL, and from what was not confirmed yet, to the end of it.
    "wal_kept_bytes",
    "wal_unconfirmed_bytes",
    "postgres_temp_files",
)
_DATABASE = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'readside%'),"
    " (SELECT count(*) FROM pg_replication_slots),"
    " (SELECT sum(size) FROM pg_ls_waldir()),"
    " (SELECT coalesce(sum(pg_current_wal_lsn() - restart_lsn), 0) FROM pg_replication_slots),"
    " (SELECT coalesce(sum(pg_current_wal_lsn() - confirmed_flush_lsn), 0) FROM pg_replication_slots),"
    " (SELECT count(*) FROM pg_ls_tmpdir())"
)


def let_go(dsn: str, seconds: float) -> None:
    """Let PostgreSQL let go of the WAL that the slot does not need any more.

    It moves a slot's restart_lsn when a record of its running transactions was decoded and confirmed. It
    writes one every 15 seconds, but only while others write; and of those that it decodes while much is
    unconfirmed, it remembers the first only.
    """
    until = time.monotonic() + seconds
    try:
        with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
            while time.monotonic() < until:
                connection.execute("SELECT pg_log_standby_snapshot()")
                time.sleep(1.0)
                if _of_postgres(connection)["wal_kept_bytes"] < _LITTLE:
                    return
        say(f"         the slot still needs more than {_LITTLE} bytes of WAL after {seconds:.0f} s")
    except psycopg.Error as error:
        say(f"         PostgreSQL could not be asked to let go of WAL: {error}")


def _of_postgres(connection: psycopg.Connection[Any]) -> dict[str, int]:
    row = connection.execute(_DATABASE).fetchone() or ()
    return dict(zip(_NAMES, map(int, row), strict=True))


def memory(world: World) -> dict[str, int]:
    """Kilobytes that each process has in memory now."""
    return {
        child.name: _rss(Path(f"/proc/{child.pid}")) for child in world.children() if child.running
    }


def figures(world: World) -> dict[str, Any]:
    """Measure now; what cannot be had is left out."""
    found: dict[str, Any] = {
        "processes": {child.name: _process(child) for child in world.children() if child.running},
        "temporary_files": sum(1 for _ in world.temporary.rglob("*")),
    }
    with suppress(psycopg.Error), psycopg.connect(world.dsn, connect_timeout=5) as connection:
        found |= _of_postgres(connection)
        found["rows"] = {table: _count(connection, table) for table in _TABLES}
    with suppress(redis.RedisError, psycopg.Error):
        measure = {"valkey": _valkey, "tables": _tables}.get(world.setup.read_store)
        if measure is not None:
            found["store"] = measure(world.documents)
    return found


def _valkey(url: str) -> dict[str, int]:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        info: Any = client.info("memory")
        hashes = [f"readside:chaos:{name}:positions" for name in ("lists", "pairs", "totals")]
        positions = sum(int(client.hlen(name)) for name in hashes)  # type: ignore[arg-type]  # not awaited here
        return {
            "memory_bytes": info["used_memory"],
            "keys": int(client.dbsize()),  # type: ignore[arg-type]  # not awaited here
            "positions": positions,
        }


def _tables(url: str) -> dict[str, int]:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(
            "SELECT pg_database_size(current_database()),"
            " (SELECT count(*) FROM readside_store.documents),"
            " (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'readside%')"
        ).fetchone()
    return dict(zip(("bytes", "positions", "connections"), map(int, row or ()), strict=True))


def growth(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """By how much each process grew that lived from the first measurement to the second."""
    old, new = before.get("processes", {}), after.get("processes", {})
    return {
        name: {
            "seconds": round(new[name]["age"] - was["age"]),
            "rss_kb": new[name]["rss_kb"] - was["rss_kb"],
            "files": new[name]["files"] - was["files"],
        }
        for name, was in old.items()
        if name in new and new[name]["pid"] == was["pid"]
    }


def _process(child: Child) -> dict[str, Any]:
    place = Path(f"/proc/{child.pid}")
    files = 0
    with suppress(OSError):
        files = sum(1 for _ in (place / "fd").iterdir())
    return {
        "pid": child.pid,
        "age": round(time.time() - child.started_at),
        "rss_kb": _rss(place),
        "files": files,
    }


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM readside.{table}".encode()).fetchone()
    return int(row[0]) if row else 0


def _rss(place: Path) -> int:
    with suppress(OSError):
        for line in (place / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
