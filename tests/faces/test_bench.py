"""`readside bench`: all figures are there, wrong results fail, slow ones do not, nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager

import psycopg
import pytest
import redis

from readside.adapters.embedded import locate
from readside.apps.bench.backlog import ground
from readside.apps.bench.check import check
from readside.apps.bench.drain import drain
from readside.apps.bench.limit import limit
from readside.apps.bench.places import Places
from readside.apps.bench.plan import Backlog

EVENTS = 2000
SMALL = Backlog(EVENTS, EVENTS // 3, partitions=3)


def bench_processes(*words: str) -> list[str]:
    """Command lines of processes that work for a bench."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if all(word in line for word in words)]


@pytest.fixture
def home(desk, tmp_path):
    """The temporary directory of the bench's own: what is left there is left behind."""
    directory = tmp_path / "tmp"
    directory.mkdir(mode=0o755)
    desk.environment["TMPDIR"] = str(directory)
    return directory


def test_a_short_run_has_all_figures_and_leaves_nothing(desk, home):
    said = desk.do(
        "bench",
        "--quick",
        "--events",
        str(EVENTS),
        "--rounds",
        "1",
        "--json",
        "--plot",
        "bench.svg",
    )
    assert said.code == 0, said.all
    found = json.loads(said.out.splitlines()[-1])
    for path in ("direct", "nats", "frames"):
        assert found[path]["eps"] > 0
        assert found[path]["ratio"] == pytest.approx(
            found[path]["eps"] / found["limit_eps"], abs=0.01
        )
    for path in ("direct", "nats"):
        latency = found["latency_ms"][path]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99_9"]
        assert latency["rate"] == 1000
        assert latency["stages_p50"]
    assert found["record"]["ratio"] > 0
    processes = {"relay", "projector", "direct", "relay_frames", "projector_frames"}
    assert processes <= set(found["peak_memory_mb"])
    assert found["cpu_seconds_per_million"]["relay"] > 0
    assert (found["events"], found["wrong_documents"]) == (EVENTS, 0)
    assert found["machine"]["cores"] >= 1
    assert "limit: pg_recvlogical" in said.out
    assert "nats in frames to the read store" in said.out
    assert re.search(r"\d s  (limit|direct|nats|frames|latency|stages|record)", said.err), said.err
    picture = ET.parse(desk.directory / "bench.svg").getroot()  # noqa: S314 - our own
    assert "through NATS" in "".join(picture.itertext())
    assert list(home.iterdir()) == []
    assert not (desk.directory / ".readside").exists()


def test_the_users_own_servers_are_as_they_were(desk, home, servers):
    def seen() -> tuple[object, ...]:
        with psycopg.connect(servers.write_store) as connection:
            rows = connection.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ 'bench'"
                " UNION ALL SELECT relname FROM pg_class WHERE relname ~ 'bench'"
                " UNION ALL SELECT pubname FROM pg_publication WHERE pubname ~ 'bench'"
            ).fetchall()
        with redis.Redis.from_url(servers.read_store) as store:
            return rows, list(store.scan_iter("*bench*"))

    before = seen()
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    desk.environment["PATH"] = f"{locate.postgres_bin()}:{desk.environment['PATH']}"
    arguments = [
        "bench",
        "--only",
        "direct,nats,frames",
        "--events",
        str(EVENTS),
        "--rounds",
        "1",
        "--json",
    ]
    said = desk.do(*arguments)
    assert said.code == 0, said.all
    found = json.loads(said.out.splitlines()[-1])
    assert found["machine"]["embedded"] == []
    assert found["nats"]["eps"] > 0
    assert found["frames"]["eps"] > 0
    assert seen() == before == ([], [])


def test_ctrl_c_ends_everything(desk, home):
    running = desk.start("bench", "--quick", "--events", "1000000")
    running.until("backlog")
    code, took = running.stop(signal.SIGINT)
    assert code == 130
    assert took < 10
    assert bench_processes(str(home)) == []
    assert bench_processes("readside.apps.bench") == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--events", "10"], "10 events are too few"),
        (["--rounds", "0"], "rounds count from 1"),
        (["--only", "direct,speed"], "no part speed"),
        (["--plot", "nowhere/bench.svg"], "nowhere/bench.svg"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(desk, arguments, words):
    said = desk.do("bench", *arguments)
    assert said.code == 1
    assert words in said.err
    assert "mend: " in said.err
    assert said.out == ""


def test_the_users_own_server_needs_the_client_in_the_path(desk, servers):
    desk.use(write_store=servers.write_store)
    desk.environment["PATH"] = "/nowhere"
    said = desk.do("bench", "--quick")
    assert said.code == 1
    assert "pg_recvlogical" in said.err
    assert "mend: " in said.err


@asynccontextmanager
async def filled(servers, directory):
    program = locate.postgres_bin() / "pg_recvlogical"
    where = Places(servers.write_store, servers.broker, servers.read_store, directory, program, {})
    async with ground(where, SMALL) as earth:
        yield earth, await earth.fill(lambda _: None)


async def test_the_check_finds_documents_that_are_missing_or_wrong(servers, tmp_path):
    async with filled(servers, tmp_path) as (earth, _):
        assert (await drain(earth, "direct:", lambda _: None)).wrong == 0
        assert await check(earth) == 0
        (projection,) = earth.description("").names
        with redis.Redis.from_url(servers.read_store) as store:
            store.delete(f"{projection}:1")
            older = json.loads(store.get(f"{projection}:2"))
            older["revision"] -= 1
            store.set(f"{projection}:2", json.dumps(older))
        assert await check(earth) == 2


async def test_the_limit_is_of_the_same_events_that_readside_drains(servers, tmp_path):
    """What pg_recvlogical is given to the end position is the backlog, but for its last transaction."""
    async with filled(servers, tmp_path) as (earth, end):
        assert await limit(earth, end) > 0
        async with earth.copied() as slot:
            cursor = await earth.connection.execute(
                "SELECT count(*) FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
                " 'proto_version', '2', 'publication_names', %s)"
                " WHERE get_byte(data, 0) = ascii('I') AND lsn < '0/0'::pg_lsn + %s::numeric",
                [slot, earth.names.publication, end.end],
            )
            assert await cursor.fetchone() == (end.events_before_end,)
        assert end.events_before_end == EVENTS - SMALL.per_transaction


async def test_a_ground_that_is_interrupted_is_removed_too(servers, tmp_path):
    async def interrupted() -> str:
        async with filled(servers, tmp_path) as (earth, _):
            name.set_result(earth.name)
            await asyncio.Event().wait()

    name: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(interrupted())
    app = await name
    task.cancel()
    await asyncio.wait({task})
    async with await psycopg.AsyncConnection.connect(servers.write_store) as connection:
        cursor = await connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE %s"
            " UNION ALL SELECT relname FROM pg_class WHERE relname LIKE %s",
            [f"%{app}%", f"%{app}%"],
        )
        assert await cursor.fetchall() == []
