"""What waiting mends: it is said once, and goes on by itself."""

from __future__ import annotations

import asyncio
import signal
import time

import psycopg
import pytest

from readside.adapters.embedded.ports import LOOPBACK, free_port

SERVICES = {"postgres": "PostgreSQL at", "nats": "NATS at", "valkey": "Redis at"}


def test_servers_that_come_late_are_waited_for(desk, servers, nats, valkey, tmp_path, make_app):
    broker = nats(f'jetstream {{ store_dir: "{tmp_path}" }}', start=False)
    store = valkey(start=False)
    desk.use(write_store=servers.write_store, broker=broker.url, read_store=store.url)
    make_app(name=desk.name)  # its slot goes at the end
    assert desk.do("init", "shop:app").code == 0
    running = desk.start("run", "shop:app")
    running.until("waiting", "NATS at")
    broker.start()
    running.until("going on", "Redis at")
    store.start()
    running.until("relay streaming; user following")
    assert running.text.count("NATS at") == 1
    assert running.text.count("Redis at") == 1
    assert "Traceback" not in running.text


def test_postgresql_that_is_away_is_waited_for_and_ctrl_c_ends_that(desk):
    desk.use(write_store=f"postgresql://u:s3cr3t@{LOOPBACK}:{free_port()}/db")
    desk.use(broker="direct:", read_store="redis://h")
    running = desk.start("run", "shop:app")
    running.until("waiting", "PostgreSQL at")
    assert running.stop()[0] == 130
    assert running.text.count("PostgreSQL at") == 1
    assert "s3cr3t" not in running.text
    assert "Traceback" not in running.text


@pytest.mark.parametrize("name", SERVICES)
async def test_a_server_that_dies_and_comes_back(desk, own, name):
    desk.use(**own.urls())
    assert desk.do("init", "shop:app").code == 0
    running = desk.start("run", "shop:app")
    await asyncio.to_thread(running.until, "relay streaming; user following")
    own.group[name].kill()
    await asyncio.to_thread(running.until, SERVICES[name])
    await own.group[name].start()
    await asyncio.to_thread(running.until, "everything works again")
    assert "Traceback" not in running.text
    texts = [line.partition("again: ")[2] for line in running.text.splitlines()]
    said = [text for text in texts if text]
    assert len(said) == len(set(said)), running.text
    assert (await asyncio.to_thread(running.stop, signal.SIGTERM))[0] == 0


def test_the_second_relay_stands_by_and_takes_over(desk, servers, make_app):
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    make_app(name=desk.name)
    assert desk.do("init", "shop:app").code == 0
    first = desk.start("run", "shop:app")
    first.until("relay streaming")
    second = desk.start("run", "shop:app")
    second.until("standby")
    killed_at = time.monotonic()
    first.process.kill()
    second.until("streams from")
    assert time.monotonic() - killed_at < 10, "PostgreSQL frees the slot of a dead client at once"
    assert "Traceback" not in second.text


def test_init_waits_for_who_writes_and_says_so(desk, servers, make_app):
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    make_app(name=desk.name)  # its slot goes at the end
    with psycopg.connect(servers.write_store) as client:
        client.execute("CREATE TEMPORARY TABLE report (line text)")
        running = desk.start("init", "shop:app")
        running.until(f"init waits for PID {client.info.backend_pid} of user")
        running.until(
            f"mend: let it end, or SELECT pg_terminate_backend({client.info.backend_pid})"
        )
        client.rollback()
        running.until("made: replication slot")
