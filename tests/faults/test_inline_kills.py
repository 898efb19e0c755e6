"""A writer is killed at any moment: its rows and the inline view of them are never apart."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

KILLS = 24

#: Each transaction sets and bumps rows of a table by SQL, and records the events which do the same
#: to the view. Prints a line for every commit, so that the killer knows where it is.
WRITER = """
import asyncio, random, sys
import psycopg
import readside

class Set(readside.Event, key="id", type="row.set"):
    id: int
    n: int

class Bumped(readside.Event, key="id", type="row.bumped"):
    id: int
    to: list[int]

class Gone(readside.Event, key="id", type="row.gone"):
    id: int

class View(readside.View):
    id: int
    n: int

app = readside.App("{name}", settle_delay=0.1)
rows = app.projection("row", View, mode="inline", table=readside.Table(key="id"))

@rows.on
def set_(event: Set) -> View:
    return View(event.id, event.n)

@rows.on(Bumped, key=lambda event: event.to)
def bumped(event: Bumped, view: View | None) -> View | None:
    return view and View(view.id, view.n + 1)

@rows.on(Gone)
def gone(event: Gone) -> None:
    return None

async def work(chance, execute):
    id_, n = chance.randrange(12), chance.randrange(1000)
    others = sorted(chance.sample(range(12), 3))
    # As the application's own rows are in an order only if it sees to that, also where there are none.
    for key in sorted({{id_, *others}}):
        await execute("SELECT pg_advisory_xact_lock(hashtext('{name}'), %s)", key)
    await execute("UPDATE {name}_rows SET n = n + 1 WHERE id = ANY(%s)", others)
    events = [Bumped(id_, others)]
    if chance.random() < 0.4:
        await execute("DELETE FROM {name}_rows WHERE id = %s", id_)
        events.append(Gone(id_))
    else:
        await execute("INSERT INTO {name}_rows VALUES (%s, %s)"
                      " ON CONFLICT (id) DO UPDATE SET n = excluded.n", id_, n)
        events.append(Set(id_, n))
    return events

async def through_the_app(chance):
    async with app.transaction() as tx:
        tx.record(*await work(chance, tx.execute))

async def on_a_connection(chance, connection):
    async with connection.transaction():
        async def execute(query, *values):
            await connection.execute(query, values)
        await app.record(connection, *await work(chance, execute))

async def writer(seed, connection):
    chance = random.Random(seed)
    while True:
        if chance.random() < 0.5:
            await through_the_app(chance)
        else:
            await on_a_connection(chance, connection)
        print("committed", flush=True)

async def main():
    connections = [
        await psycopg.AsyncConnection.connect(app.settings.write_store, autocommit=True)
        for _ in range(3)
    ]
    await asyncio.gather(*(writer(f"{{sys.argv[1]}}-{{n}}", c) for n, c in enumerate(connections)))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def writer(make_app: Any, servers: Any, unique: str, tmp_path: Path) -> Any:
    """Starts writers; their tables are there."""
    make_app(servers.broker)  # its slot goes at the end
    (tmp_path / "writer.py").write_text(WRITER.format(name=unique))
    environment = os.environ | {
        "READSIDE_WRITE_STORE": servers.write_store,
        "READSIDE_BROKER": servers.broker,
        "READSIDE_READ_STORE": servers.read_store,
        "PYTHONUNBUFFERED": "1",
    }
    with psycopg.connect(servers.write_store, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {unique}_rows (id bigint PRIMARY KEY, n bigint)".encode())
    command = [sys.executable, "-m", "readside", "init", "writer:app"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    def start(seed: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "writer.py", str(seed)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
        )

    return start


def test_a_killed_writer_leaves_table_and_view_equal(
    writer: Any, servers: Any, unique: str
) -> None:
    chance = random.Random(20261124)
    commits = 0
    seen: set[frozenset[Any]] = set()
    for kill in range(KILLS):
        process = writer(kill)
        try:
            # Somewhere in the work, never at the same place: between two commits and one more, and a
            # number of turns of this process later, which is no time that anything depends on.
            for _ in range(chance.randrange(1, 60)):
                assert process.stdout.readline() == b"committed\n"
                commits += 1
            for _ in range(chance.randrange(0, 60_000)):
                pass
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        rows = _settled(servers.write_store, unique)
        seen.add(frozenset(rows))
    assert commits >= KILLS
    assert len(seen) > KILLS // 2  # it was not the same all the time


def _settled(dsn: str, name: str) -> list[Any]:
    """What the table has, and the view too, at one moment: whoever is still committing has both or none."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            rows = connection.execute(
                f"SELECT id, n FROM {name}_rows ORDER BY 1".encode()
            ).fetchall()
            view = connection.execute(
                f"SELECT id, n FROM {name}.row ORDER BY 1".encode()
            ).fetchall()
        assert rows == view
    return rows
