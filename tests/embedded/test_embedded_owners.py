"""Who owns the servers: others attach to them, and none outlives its owner."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading

import psycopg
import pytest
from tests.embedded.groups import OWNER, SERVICES, family_of, living, owner, until, write

from readside.adapters.embedded import EmbeddedServers, family
from readside.core.errors import UnavailableError


async def test_another_process_attaches_and_does_not_stop_them(tmp_path):
    directory = tmp_path / "data"
    servers = EmbeddedServers(directory)
    async with servers as addresses:
        pids = family_of(servers)
        async with owner(directory) as (_, said):
            assert said.pop("pids") == []
            assert said == vars(addresses)
        assert [servers[name].running for name in SERVICES] == [True] * 3
        again = EmbeddedServers(directory, services=frozenset({"nats"}))
        async with again as fewer:
            assert fewer.broker == addresses.broker
            assert again.attached
        await write(addresses, "one")
    assert not living(pids)


async def test_who_comes_while_they_start_waits_for_the_owner(tmp_path):
    one, other = EmbeddedServers(tmp_path), EmbeddedServers(tmp_path)
    assert len({await one.start(), await other.start()}) == 1
    await other.stop()
    await one.stop()
    starts = await asyncio.gather(one.start(), other.start())
    assert starts[0] == starts[1]
    assert one.attached != other.attached
    await asyncio.gather(one.stop(), other.stop())


async def test_missing_services_of_a_running_owner_are_named(tmp_path):
    async with EmbeddedServers(tmp_path, services=frozenset({"valkey"})):
        with pytest.raises(UnavailableError, match="without nats, postgres"):
            await EmbeddedServers(tmp_path).start()


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux'")
@pytest.mark.parametrize("lasting", [False, True])
async def test_no_server_outlives_a_killed_owner(tmp_path, lasting):
    async with owner(*([tmp_path / "data"] if lasting else [])) as (process, said):
        pids = {p for pid in said["pids"] for p in (pid, *family.descendants(pid))}
        assert len(pids) > len(SERVICES)
        assert living(pids) == pids
        connection = await psycopg.AsyncConnection.connect(said["write_store"])
        process.kill()
        await until(lambda: not living(pids), seconds=2)
        await connection.close()
    if lasting:
        async with EmbeddedServers(tmp_path / "data") as addresses:
            assert vars(addresses).items() <= said.items()


@pytest.mark.skipif(sys.platform != "linux", reason="leftovers are recognised in /proc")
async def test_the_next_owner_ends_a_paused_leftover(tmp_path):
    async with owner(tmp_path / "data") as (process, said):
        postmaster = said["pids"][1]
        family.send([postmaster, *family.descendants(postmaster)], signal.SIGSTOP)
        process.kill()
        process.wait()
        assert living([postmaster])
        async with EmbeddedServers(tmp_path / "data") as addresses:
            assert not living([postmaster])
            assert addresses.write_store == said["write_store"]


async def test_the_thread_that_started_them_may_end():
    servers = EmbeddedServers()
    thread = threading.Thread(target=lambda: asyncio.run(servers.start()))
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0.1)
    assert all(servers[name].running for name in SERVICES)
    await servers.stop()


def test_an_exit_without_stop_stops_them():
    script = OWNER.replace("await servers.stop()", "").replace("sys.stdin.read", "print")
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, timeout=20
    )
    assert not living(json.loads(done.stdout.splitlines()[0])["pids"])


async def test_a_cancelled_start_leaves_nothing(tmp_path):
    servers = EmbeddedServers(tmp_path / "data")
    start = asyncio.create_task(servers.start())
    await until((tmp_path / "data" / "valkey.log").exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    for name in SERVICES:
        programs = {"postgres", "initdb", "nats-server", "valkey-server"}
        for home in (name, f"{name}.new"):
            assert not family.squatters((tmp_path / "data" / home).resolve(), programs)
    async with EmbeddedServers(tmp_path / "data") as addresses:
        await write(addresses, "one")
