"""`readside servers`: progress, addresses, clients; one owner of a directory; a dead server comes back."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psycopg
import pytest

from readside.adapters.embedded import EmbeddedServers, family


def test_progress_addresses_and_clients_are_shown(desk):
    running = desk.start("servers")
    text = running.until("starting", "postgres is there", "they run until Ctrl-C")
    url = text.partition("READSIDE_WRITE_STORE=")[2].split()[0]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    for client in (f"psql {url}", "nats --server nats://", "-cli -u redis://"):
        assert client in text
    assert running.stop()[0] == 130


def test_the_second_process_is_told_where_they_are_and_who_runs_them(desk):
    first = desk.start("servers", "--json")
    text = first.until("write_store", "they run until Ctrl-C")
    addresses = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    second = desk.do("servers", "--json")
    assert second.code == 0
    assert json.loads(second.out) == addresses
    assert f"process {first.process.pid} runs them already" in second.err
    assert first.stop()[0] == 130


def test_two_that_start_at_once_share(desk):
    both = [desk.start("servers"), desk.start("servers")]
    for one in both:
        one.until("READSIDE_WRITE_STORE=")
    owners = [one for one in both if "starting" in one.text]
    assert len(owners) == 1
    (guest,) = (one for one in both if one not in owners)
    assert guest.ended() == 0
    assert owners[0].stop()[0] == 130


@pytest.mark.parametrize("name", ["postgres", "nats-server", "valkey-server"])
def test_a_server_that_dies_is_started_again(desk, name):
    running = desk.start("servers")
    running.until("they run until Ctrl-C")
    pid = next(
        pid
        for pid in family.descendants(running.process.pid)
        if Path(f"/proc/{pid}/exe").readlink().name == name
    )
    os.kill(pid, signal.SIGKILL)
    kind = name.removesuffix("-server")
    at = len(running.until(f"{kind} has died; starting it again"))
    running.until(f"{kind} is there after", after=at - 1)
    assert running.stop()[0] == 130


async def test_a_path_of_any_length_with_any_letters(tmp_path):
    deep = tmp_path / "with space" / "ünï'\"cödé" / ("x" * 100) / ("y" * 100)
    async with EmbeddedServers(deep, durable=False) as addresses:
        connection = await psycopg.AsyncConnection.connect(addresses.write_store)
        await connection.close()


def test_a_place_that_cannot_be_written_is_named(desk):
    desk.write("file", "")
    said = desk.do("servers", "--directory", "file/inside")
    assert said.code == 1
    assert "file/inside cannot be used" in said.err
    assert "mend: choose a directory" in said.err
