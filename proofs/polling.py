"""Polling: rows that were published and are retained cost it nothing, and a long transaction makes it skip none."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from proofs.figures import Row, milliseconds
from proofs.held import held
from proofs.outbox import APP, RECORD, Outbox
from proofs.plans import batch_plan, news_plan
from readside.adapters.embedded import EmbeddedServers
from readside.adapters.postgres.installation import install

_LOOKS = 2000
_EVENTS = 300
_AT_ONCE = 50_000
#: Pages that a look may touch, however many rows there are.
_FEW_PAGES = 64
_MANY = (
    "SELECT count(readside.record('proof', 'thing.done', 'k' || n %% 1000, to_json(repeat('x', 100))))"
    " FROM generate_series(1, %s) n"
)


async def polling(retained: int, seconds: float, short: int) -> tuple[dict[str, Any], list[str]]:
    """Measure without and with so many rows, then hold a transaction open; all figures, and what is wrong."""
    group = EmbeddedServers(None, services=frozenset({"postgres"}), durable=True)
    async with group as servers:
        dsn = servers.write_store
        await install(dsn, APP, 8, 1_000_000, "polling")
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as client:
            outbox = Outbox(dsn, client)
            await outbox.source.start(await outbox.ask("SELECT origin_lsn FROM readside.capture"))
            try:
                return await _told(outbox, retained, seconds, short)
            finally:
                await outbox.source.close()


async def _told(
    outbox: Outbox, retained: int, seconds: float, short: int
) -> tuple[dict[str, Any], list[str]]:
    looks = [await _looks(outbox)]
    filled = await _fill(outbox, retained)
    looks.append(await _looks(outbox))
    open_, wrong = await held(outbox, seconds, short)
    plans = {"news": await news_plan(outbox), "batch": await batch_plan(outbox)}
    for name, plan in plans.items():
        wrong += [f"{name} reads the whole table" for node in plan if "Seq Scan" in node["node"]]
        if plan[0]["pages"] > _FEW_PAGES:
            wrong.append(f"{name} touches {plan[0]['pages']} pages")
    return {"looks": looks, "retained": filled, "held": open_, "plans": plans}, wrong


async def _looks(outbox: Outbox) -> Row:
    """What a look costs that finds nothing, and how long an event takes from its commit to the poller's hands."""
    await outbox.client.execute("VACUUM ANALYZE readside.outbox")
    await outbox.quiet()
    rows = await outbox.ask("SELECT count(*) FROM readside.outbox")
    base = await outbox.ask("SELECT max(lsn) FROM readside.ticks")
    token = await outbox.ask("SELECT token FROM readside.pollers")
    idle: list[float] = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        found = await outbox.ask(
            "SELECT count(*) FROM readside.tick(%s, %s, %s, false)", APP, base, token
        )
        idle.append(time.perf_counter() - began)
        assert found == 0, "somebody else writes"  # noqa: S101 - the figure would mean nothing
    hands: list[float] = []
    for number in range(_EVENTS):
        await outbox.client.execute(RECORD, ["k", str(number)])
        began = time.perf_counter()
        await outbox.take(1)
        hands.append(time.perf_counter() - began)
    return {
        "rows": rows,
        "idle_look_ms": milliseconds(idle),
        "commit_to_poller_ms": milliseconds(hands),
    }


async def _fill(outbox: Outbox, retained: int) -> Row:
    """Write rows and let them be published, that is, read and settled; they stay in the outbox."""
    written = published = 0.0
    for first in range(0, retained, _AT_ONCE):
        count = min(_AT_ONCE, retained - first)
        began = time.perf_counter()
        await outbox.client.execute(_MANY, [count])
        written += time.perf_counter() - began
        began = time.perf_counter()
        await outbox.take(count)
        published += time.perf_counter() - began
    size = await outbox.ask(
        "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('readside.outbox')"
    )
    return {"rows": retained, "written_s": round(written, 1), "published_s": round(published, 1),
            "megabytes": size // 2**20}  # fmt: skip
