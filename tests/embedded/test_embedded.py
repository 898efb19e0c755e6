"""Real servers; every test starts its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psycopg
import pytest
from tests.embedded.groups import SERVICES, family_of, living, read, until, write

from readside.adapters.embedded import EmbeddedServers, family, locate
from readside.core.errors import SettingsError, UnavailableError


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
