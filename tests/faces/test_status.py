"""`readside status`: the table fits, never started is for ever late, watching survives an absence."""

from __future__ import annotations

import asyncio
import io
import json

import pytest
from rich.console import Console
from rich.text import Text

from readside.apps.cli.table import render
from readside.operate.status import PartitionStatus, ProjectionStatus, status


@pytest.fixture
def installed(desk, servers, make_app):
    desk.use(write_store=servers.write_store, broker=servers.broker, read_store=servers.read_store)
    make_app(name=desk.name)  # its slot goes at the end
    assert desk.do("init", "shop:app").code == 0
    return desk


def test_before_and_while_it_runs(installed):
    fresh = installed.do("status", "shop:app")
    assert fresh.code == 1
    assert "not running" in fresh.out
    assert "start it: readside run shop:app" in fresh.out
    installed.start("run", "shop:app").until("relay streaming; user following")
    said = installed.do("status", "shop:app")
    assert said.code == 0
    assert "\x1b" not in said.out
    assert len(said.out.splitlines()) <= 13
    assert said.out.count("following") == 9  # the projection and its partitions
    found = json.loads(installed.do("status", "shop:app", "--json").out)
    assert found["relay"]["state"] == "streaming"
    (user,) = found["projections"]
    assert (user["lag_events"], user["state"]) == (0, "following")


async def test_a_projection_that_never_started_is_for_ever_late(installed, servers):
    running = installed.start("run", "shop:app", "--role", "relay")
    await asyncio.to_thread(running.until, "never started")
    found = json.loads((await asyncio.to_thread(installed.do, "status", "shop:app", "--json")).out)
    assert found["projections"][0]["lag_seconds"] is None
    said = await asyncio.to_thread(installed.do, "status", "shop:app")
    assert said.code == 1
    assert "for ever" in said.out
    assert "projections without a worker" in said.out


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10)])
@pytest.mark.parametrize("projections", [1, 3, 9])
async def test_it_fits_the_screen(servers, make_app, width, height, projections):
    """With names that are too long, and numbers as they become after a year."""
    app = make_app()
    runtime = await app.runtime()
    await runtime.install()
    seen = await status(servers.write_store, app.name)
    await app.close()
    position = f"{seen.epoch}:1FF/FFFFFFFF:123"
    part = PartitionStatus(
        7, position, 1_234_567_890, 12_345_678, 86_400.0, 12_345.0, "following", "", "worker", 0
    )
    seen.projections = [
        ProjectionStatus(
            f"projection_with_a_long_name_{n}",
            "following",
            99_999_999,
            None,
            98_765.0,
            0,
            [part] * 8,
        )
        for n in range(projections)
    ]
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=width, height=height, no_color=True)
    console.print(render(seen, "shop:app", console, every_partition=False))
    lines = Text.from_ansi(said.getvalue()).plain.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, projections + 6)
    if width >= 80:
        assert sum("following" in line for line in lines) >= projections


async def test_watching_survives_an_absence_of_postgresql(desk, own):
    desk.use(**own.urls())
    assert (await asyncio.to_thread(desk.do, "init", "shop:app")).code == 0
    running = desk.start("status", "shop:app", "--watch")
    await asyncio.to_thread(running.until, "relay not running")
    own.group["postgres"].kill()
    at = len(await asyncio.to_thread(running.until, "waiting: "))
    await own.group["postgres"].start()
    await asyncio.to_thread(lambda: running.until("relay not running", after=at))
    assert running.stop()[0] == 130
    assert "Traceback" not in running.text
