"""`readside demo`: what it prints, and that it can fail."""

from __future__ import annotations

import json
import re
import subprocess

import psycopg
import pytest
import redis

from readside.apps.demo.check import check
from readside.apps.demo.shop import Shop

USERS = 60


@pytest.mark.parametrize(
    ("broker", "store"), [("nats", "valkey"), ("direct", "valkey"), ("direct", "postgres")]
)
def test_json_is_all_that_is_on_standard_output(desk, broker, store):
    said = desk.do("demo", "--users", str(USERS), "--broker", broker, "--store", store, "--json")
    assert said.code == 0, said.all
    (line,) = said.out.splitlines()
    found = json.loads(line)
    # One more was followed step by step.
    assert (found["committed"], found["in_read_store"]) == (USERS + 1, USERS + 1)
    assert (found["missing"], found["mismatched"]) == (0, 0)
    assert set(found["latency_ms"]) == {"p50", "p90", "p99"}
    assert said.err == ""


def test_a_pipe_gets_plain_lines_and_the_message_with_its_headers(desk):
    said = desk.do("demo", "--users", str(USERS))
    assert said.code == 0, said.all
    assert "\x1b" not in said.out
    assert "\r" not in said.out
    message = said.out.partition("message on NATS")[2].partition("document in Valkey")[0]
    for part in (
        "Readside: ",
        '"name":"Ada',
    ):
        assert part in message
    assert f"{USERS + 1} committed, {USERS + 1} in the read store, 0 missing" in said.out


def test_keep_shows_commands_that_work(desk):
    running = desk.start("demo", "--users", str(USERS), "--keep")
    text = running.until("Ctrl-C ends everything", "-cli -u redis://")
    command = next(line for line in text.splitlines() if "TABLE users" in line)
    table = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=240, check=True
    )
    assert "ada@example.org" in table.stdout
    url = re.search(r"-u (redis://\S+) GET (\S+)", text)
    with redis.Redis.from_url(url[1]) as store:
        assert b"Ada Lovelace" in store.get(url[2])
    assert running.stop()[0] == 130


async def test_the_check_finds_what_is_missing_and_what_is_wrong(servers, make_app):
    make_app(name="shop")  # its slot goes at the end
    shop = Shop(servers.write_store, servers.broker, servers.read_store)
    store = redis.Redis.from_url(servers.read_store)
    try:
        await shop.install()
        ids = [(await shop.create_user(f"U{n}", "u@example.org"))[0] for n in range(3)]
        store.set(
            f"user:{ids[0]}", json.dumps({"id": ids[0], "name": "U0", "email": "u@example.org"})
        )
        store.set(
            f"user:{ids[1]}", json.dumps({"id": ids[1], "name": "X", "email": "u@example.org"})
        )
        verdict = await check(servers.write_store, servers.read_store)
        assert verdict == (3, 2, 1, 1)
        assert not verdict.good
    finally:
        store.delete(*(f"user:{id_}" for id_ in ids))
        store.close()
        await shop.app.close()
        async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
            await connection.execute("DROP TABLE users")


def test_a_server_that_dies_during_the_demo_is_one_message(desk):
    running = desk.start("demo", "--users", "100000")
    running.until("users at")
    store = subprocess.run(
        ["pgrep", "-P", str(running.process.pid), "valkey-server"],
        capture_output=True,
        text=True,
        check=True,
    )
    subprocess.run(["kill", "-9", *store.stdout.split()], check=True)
    assert running.ended() == 1
    assert running.text.count("readside: ") == 1
    assert "mend: " in running.text
    assert "Traceback" not in running.text


@pytest.mark.parametrize("arguments", [["--users", "0"], ["--rate", "0"]])
def test_numbers_that_make_no_sense(desk, arguments):
    said = desk.do("demo", *arguments)
    assert said.code == 1
    assert "count from 1" in said.err
