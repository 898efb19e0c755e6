"""Groups of real servers, who owns them, and what is kept in them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import nats
import psycopg
import redis.asyncio as redis

from readside.adapters.embedded import family

SERVICES = ["nats", "postgres", "valkey"]

# Starts servers, says who they are, and stays until its standard input is closed.
OWNER = """
import asyncio, json, sys
from dataclasses import asdict
from pathlib import Path
from readside.adapters.embedded import EmbeddedServers

async def main():
    servers = EmbeddedServers(Path(sys.argv[1]) if sys.argv[1:] else None)
    addresses = await servers.start()
    pids = [] if servers.attached else [servers[n].pid for n in ("nats", "postgres", "valkey")]
    print(json.dumps({**asdict(addresses), "pids": pids}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await servers.stop()

asyncio.run(main())
"""


async def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def run_owner(arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", OWNER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@asynccontextmanager
async def owner(*arguments):
    with run_owner(arguments) as process:
        said = json.loads(await asyncio.to_thread(process.stdout.readline))
        try:
            yield process, said
        finally:
            process.stdin.close()
            await asyncio.to_thread(process.wait, 10)
    assert process.returncode in {0, -signal.SIGKILL}


async def write(addresses, word):
    async with await psycopg.AsyncConnection.connect(addresses.write_store) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
        await connection.execute("INSERT INTO kept VALUES (%s)", [word])
    client = await nats.connect(addresses.broker)
    stream = client.jetstream()
    await stream.add_stream(name="kept", subjects=["kept"])
    await stream.publish("kept", word.encode())
    await client.close()
    async with redis.Redis.from_url(addresses.read_store) as store:
        await store.set("kept", word)


async def read(addresses):
    async with await psycopg.AsyncConnection.connect(addresses.write_store) as connection:
        row = await (await connection.execute("SELECT max(word) FROM kept")).fetchone()
    client = await nats.connect(addresses.broker)
    message = await client.jetstream().get_last_msg("kept", "kept")
    await client.close()
    async with redis.Redis.from_url(addresses.read_store) as store:
        return row[0], message.data.decode(), (await store.get("kept")).decode()


def family_of(servers):
    pids = [servers[name].pid for name in SERVICES]
    return {*pids, *(child for pid in pids for child in family.descendants(pid))}


def living(pids):
    return set(pids) & family.parents().keys()
