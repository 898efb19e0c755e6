"""The writers, in a process of their own: at a fixed rate, or as fast as eight clients can."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg

import readside
from readside.apps.bench.figures import percentile
from readside.apps.bench.subject import FILE, Description, declare, saved
from readside.apps.process import run
from readside.write.outbox import row_of, statements

CLIENTS = 8
_WARM_UP = 0.3
_PAYLOAD = 300


class Rate(msgspec.Struct, tag="rate"):
    """Write at a fixed rate, on a schedule that waits for nobody."""

    transactions_per_second: float
    events_per_transaction: int
    transactions: int
    documents: int


class Cost(msgspec.Struct, tag="cost"):
    """Write as fast as possible, in turn without and with an event."""

    rounds: int
    seconds: float
    table: str


class Paced(msgspec.Struct):
    """How well the schedule was kept."""

    late_ms_p99: float


class Costs(msgspec.Struct):
    """Transactions a second of each round."""

    without: list[float]
    with_record: list[float]


async def pace(description: Description, job: Rate) -> Paced:
    """Send each transaction when it is due, however late the others are."""
    ready = iter(list(_prepared(description.name, job)))  # not encoded while the clock runs
    connections = [
        await psycopg.AsyncConnection.connect(description.write_store, autocommit=True)
        for _ in range(CLIENTS)
    ]
    late: list[float] = []
    began = time.perf_counter() + 0.05

    async def client(connection: psycopg.AsyncConnection[Any]) -> None:
        for number, (statement, values) in ready:
            due = began + number / job.transactions_per_second
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            late.append(time.perf_counter() - due)
            await connection.execute(statement, values, prepare=True)

    try:
        await asyncio.gather(*map(client, connections))
    finally:
        for connection in connections:
            await connection.close()
    return Paced(round(percentile(sorted(late), 0.99) * 1000, 2))


def _prepared(app: str, job: Rate) -> Iterator[tuple[int, tuple[bytes, list[Any]]]]:
    each = job.events_per_transaction
    for number in range(job.transactions):
        events = (saved(number * each + n, job.documents, _PAYLOAD) for n in range(each))
        (work,) = statements([row_of(app, event, None, 1_000_000) for event in events])
        yield number, work


async def compare(description: Description, job: Cost) -> Costs:
    """Measure both kinds of transaction in turn."""
    app = declare(description)
    found = Costs([], [])
    async with app:
        await _rounds(app, job.table, _WARM_UP, record=True)
        for _ in range(job.rounds):
            found.without.append(await _rounds(app, job.table, job.seconds, record=False))
            found.with_record.append(await _rounds(app, job.table, job.seconds, record=True))
    return found


async def _rounds(app: readside.App, table: str, seconds: float, *, record: bool) -> float:
    insert = (
        f"INSERT INTO {table} (name, email, address, about) VALUES (%s, %s, %s, %s) RETURNING id"
    )
    done = 0
    began = time.perf_counter()

    async def client(first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() - began < seconds:
            event = saved(number, 1_000_000, _PAYLOAD)
            number += CLIENTS
            async with app.transaction() as tx:
                await tx.fetchone(insert, event.name, event.email, event.address, event.about)
                if record:
                    tx.record(event)
            done += 1

    await asyncio.gather(*map(client, range(CLIENTS)))
    return done / (time.perf_counter() - began)


async def main(description: Description, job: Rate | Cost) -> int:
    """Do the job, and print what came of it."""
    result = await (pace(description, job) if isinstance(job, Rate) else compare(description, job))
    print(f"done {msgspec.json.encode(result).decode()}", flush=True)
    return 0


if __name__ == "__main__":
    app = msgspec.json.decode(Path(FILE).read_bytes(), type=Description)
    work = msgspec.json.decode(sys.argv[1], type=Rate | Cost)
    sys.exit(run(lambda: main(app, work)))
