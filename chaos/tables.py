"""The read store as tables: a PostgreSQL of its own, which can be emptied and put back."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg

#: Files of older states that are kept; each has some 50 MB.
_KEPT = 8
_EMPTY = """
SELECT format('TRUNCATE %s', string_agg(format('%I.%I', schemaname, tablename), ', '))
FROM pg_tables WHERE schemaname = 'chaos'
    OR schemaname = 'readside_store' AND tablename IN ('documents', 'checkpoints', 'parked', 'halted')
"""


def copy(home: Path, place: Path) -> bool:
    """Copy the files of a server which is frozen; the owner stays, as PostgreSQL wants it."""
    ended = subprocess.run(["/bin/cp", "-a", home, place], check=False, capture_output=True)
    return ended.returncode == 0


def put_back(home: Path, place: Path) -> None:
    """Let the files of a server which has ended be an older state."""
    shutil.rmtree(home)
    if not copy(place, home):
        raise OSError(f"{place} cannot be copied")


def thin(snapshots: list[tuple[float, Path]]) -> None:
    """Give up the oldest states where there are too many."""
    while len(snapshots) > _KEPT:
        shutil.rmtree(snapshots.pop(0)[1], ignore_errors=True)


async def empty(url: str) -> int:
    """Take everything out of the tables, those of readside too; how many documents it knew there."""
    for _ in range(40):
        try:
            async with await psycopg.AsyncConnection.connect(
                url, connect_timeout=5, application_name="chaos fault"
            ) as connection:
                await connection.execute("SET LOCAL lock_timeout = '2s'")
                gone = await _one(connection, "SELECT count(*) FROM readside_store.documents")
                await connection.execute((await _one(connection, _EMPTY)).encode())
        except psycopg.Error:
            await asyncio.sleep(0.1)
        else:
            return int(gone)
    return 0


async def _one(connection: Any, query: str) -> Any:
    row = await (await connection.execute(query.encode())).fetchone()
    return row[0]
