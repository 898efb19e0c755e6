"""Resources before and after: memory, connections, slots, WAL, temporary files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from chaos.world import World

_TEMPORARY = "SELECT count(*) FROM pg_ls_tmpdir()"


def figures(world: World) -> dict[str, Any]:
    """Measure now; what cannot be had is left out."""
    found: dict[str, Any] = {
        "rss_kb": {node.name: _rss(node.child.pid) for node in world.nodes},
        "temporary_files": sum(1 for _ in world.temporary.rglob("*")),
    }
    with suppress(psycopg.Error), psycopg.connect(world.dsn, connect_timeout=5) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'readside%'),"
            " (SELECT count(*) FROM pg_replication_slots),"
            " (SELECT sum(size) FROM pg_ls_waldir()),"
            f" ({_TEMPORARY})"
        ).fetchone()
        if row is not None:
            found |= {
                "connections": row[0],
                "slots": row[1],
                "wal_bytes": int(row[2]),
                "postgres_temporary_files": row[3],
            }
    return found


def _rss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
