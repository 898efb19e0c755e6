"""``readside run --workers``: several processes project, and one process answers for them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import psycopg
import pytest
import redis

from readside.adapters.embedded import family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PATIENCE = 60.0
USERS = 40


@pytest.fixture
def at_servers(desk, servers):
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    assert desk.do("init", "shop:app").code == 0
    return desk


def record(desk, servers, ids):
    with psycopg.connect(servers.write_store, autocommit=True) as connection:
        for number in ids:
            payload = json.dumps({"id": number, "name": "Ada"})
            connection.execute(
                "SELECT readside.record(%s, 'user.created', %s, %s::json)",
                [desk.name, str(number), payload],
            )


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def applied(servers, ids):
    with redis.Redis.from_url(servers.read_store) as client:
        return all(client.mget([f"user:{number}" for number in ids]))


def owners(desk, servers):
    with psycopg.connect(servers.write_store) as connection:
        rows = connection.execute(
            "SELECT DISTINCT owner FROM readside.leases WHERE app = %s AND expires_at > now()",
            [desk.name],
        )
        return {owner for (owner,) in rows}


def test_several_processes_share_the_partitions_and_a_killed_one_is_replaced(at_servers, servers):
    running = at_servers.start("run", "shop:app", "--workers", "2")
    running.until("streaming")
    wait_for(lambda: len(owners(at_servers, servers)) == 2)
    record(at_servers, servers, range(USERS))
    wait_for(lambda: applied(servers, range(USERS)))
    (first, *others) = family.descendants(running.process.pid)
    assert others
    os.kill(first, signal.SIGKILL)
    running.until("was ended by signal 9; another one starts")
    record(at_servers, servers, range(USERS, 2 * USERS))
    wait_for(lambda: applied(servers, range(USERS, 2 * USERS)))
    wait_for(lambda: len(family.descendants(running.process.pid)) >= 2)
    below = family.descendants(running.process.pid)
    code, _ = running.stop(signal.SIGTERM)
    assert code == 0
    assert not set(below) & family.parents().keys()


def test_a_handler_that_ends_its_process_does_not_end_the_service(at_servers, servers):
    """It is found out by being tried again, which takes processes that are started again."""
    at_servers.write(
        "deadly.py",
        "import os\nfrom shop import app, users\n"
        "users.routes['user.created'].handler = lambda event: os._exit(9)\n",
    )
    running = at_servers.start("run", "deadly:app", "--workers", "2")
    wait_for(lambda: len(owners(at_servers, servers)) == 2)
    record(at_servers, servers, [1])
    running.until("ended with exit code 9; another one starts")
    assert running.process.poll() is None


def test_workers_end_with_a_process_that_is_killed(at_servers, servers):
    running = at_servers.start("run", "shop:app", "--workers", "2")
    wait_for(lambda: len(owners(at_servers, servers)) == 2)
    below = set(family.descendants(running.process.pid))
    running.process.kill()
    wait_for(lambda: not below & family.parents().keys())


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("--role", "relay", "--workers", "2"), {}, "one relay works"),
        (("--workers", "2"), {"broker": "direct:"}, "Without a broker, one process"),
        (("--workers", "0"), {}, "--workers"),
    ],
)
def test_what_workers_cannot_do_is_refused(at_servers, arguments, settings, words):
    at_servers.use(**settings)
    said = at_servers.do("run", "shop:app", *arguments)
    assert said.code in {1, 2}  # 2 for what no app could do
    assert words in said.err
    assert "Traceback" not in said.all
