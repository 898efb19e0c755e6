"""What PostgreSQL does for the poller's two questions: whether there is anything new, and what a batch has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from proofs.outbox import APP, RECORD, Outbox
from readside.adapters.postgres.polling import batch_query
from readside.core.ticking import Snapshot, between

Plan = list[dict[str, Any]]


async def news_plan(outbox: Outbox) -> Plan:
    """The plan of the question whether there is anything new."""
    query = await outbox.ask("SELECT readside.news(%s)", APP)
    snapshot = await outbox.ask(
        "SELECT snapshot::text FROM readside.ticks ORDER BY lsn DESC LIMIT 1"
    )
    query = query.replace("$1", f"'{Snapshot.parse(snapshot).xmax}'::xid8")
    return await _plan(outbox, query.replace("$2", f"'{snapshot}'::pg_snapshot"))


async def batch_plan(outbox: Outbox) -> Plan:
    """The plan of a batch of one event."""
    before = Snapshot.parse(await outbox.ask("SELECT pg_current_snapshot()::text"))
    await outbox.client.execute(RECORD, ["k", "one more"])
    after = Snapshot.parse(await outbox.ask("SELECT pg_current_snapshot()::text"))
    query = batch_query(APP, between(before, after)).as_string(outbox.client)
    return await _plan(outbox, query)


async def _plan(outbox: Outbox, query: str) -> Plan:
    """What PostgreSQL did for a query: each node that was executed, with its pages and rows."""
    async with outbox.client.transaction():
        await outbox.client.execute("SET LOCAL enable_seqscan = off")  # as the poller does
        statement = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}").format(sql.SQL(query))
        row = await (await outbox.client.execute(statement)).fetchone()
    assert row is not None  # noqa: S101 - EXPLAIN has an answer
    return list(_nodes(row[0][0]["Plan"], 0))


def _nodes(node: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    if node["Actual Loops"]:
        yield {
            "node": f"{'  ' * depth}{node['Node Type']} {node.get('Index Name', node.get('Relation Name', ''))}".rstrip(),
            "rows": node["Actual Rows"],
            "pages": node["Shared Hit Blocks"] + node["Shared Read Blocks"],
            "ms": node["Actual Total Time"],
        }
    for inner in node.get("Plans", []):
        yield from _nodes(inner, depth + 1)
