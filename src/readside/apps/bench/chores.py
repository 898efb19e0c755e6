"""Chores that servers do now and then: done beforehand, so that none falls into the middle of a measurement."""

from __future__ import annotations

import asyncio

import redis.asyncio as redis
from psycopg import AsyncConnection, sql

from readside.apps.bench.places import Places


async def tidy_table(connection: AsyncConnection[tuple[object, ...]], table: str) -> None:
    """Vacuum a table of readside that was just filled, and flush what PostgreSQL has changed to disk."""
    name = sql.Identifier("readside", table)
    await connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(name))
    await connection.execute("CHECKPOINT")


async def tidy_log(places: Places) -> None:
    """Let an embedded read store rewrite its append-only file now, and not while it is measured."""
    if "valkey" not in places.servers:
        return
    async with redis.Redis.from_url(places.read_store) as client:
        await client.config_set("auto-aof-rewrite-percentage", 0)
        await client.bgrewriteaof()
        while True:
            found = await client.info("persistence")
            if not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]):
                return
            await asyncio.sleep(0.02)
