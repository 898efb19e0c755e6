"""What recording an event costs the transaction that records it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from psycopg import sql

from readside.apps.bench.backlog import Ground
from readside.apps.bench.figures import Spread, ratios
from readside.apps.bench.processes import started
from readside.apps.bench.writers import Cost, Costs


class Recorded(NamedTuple):
    """Transactions a second of one row, without and with one event."""

    without: Spread
    with_record: Spread
    ratio: Spread


async def record(ground: Ground, rounds: int, seconds: float) -> Recorded:
    """Measure both in turn, in a process with eight concurrent clients."""
    await ground.connection.execute(
        sql.SQL(
            "CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " name text, email text, address text, about text)"
        ).format(sql.Identifier(ground.rows))
    )
    ground.describe("direct:")
    job = msgspec.json.encode(Cost(rounds, seconds, ground.rows)).decode()
    arguments = ["readside.apps.bench.writers", job]
    async with started("writers", ground.places.directory, arguments) as writers:
        text = await writers.result()
    costs = msgspec.json.decode(text, type=Costs)
    return Recorded(
        Spread.of(costs.without),
        Spread.of(costs.with_record),
        Spread.of(ratios(costs.with_record, costs.without)),
    )
