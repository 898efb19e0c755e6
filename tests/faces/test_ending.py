"""Ctrl-C, SIGTERM, SIGHUP, SIGKILL at any moment: a quick end that leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from readside.adapters.embedded import family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

#: Two seconds are promised; the rest is for a machine that has others to serve.
SECONDS = 4.0
#: What a signal makes of the exit code of a service, and of a job.
SERVICE = {signal.SIGINT: 130, signal.SIGTERM: 0, signal.SIGHUP: 129}
JOB = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def inside(directory: Path) -> set[int]:
    """Processes that work below a directory."""
    found = set()
    for pid in family.parents():
        try:
            place = str(Path(f"/proc/{pid}/cwd").readlink()).removesuffix(" (deleted)")
        except OSError:
            continue
        if Path(place).is_relative_to(directory):
            found.add(pid)
    return found


@pytest.fixture
def place(desk):
    """Where the temporary directories of the command are made."""
    made = desk.directory / "tmp"
    made.mkdir()
    made.chmod(0o777)
    desk.environment["TMPDIR"] = str(made)
    return made


def nothing_left(desk, place):
    deadline = time.monotonic() + 10
    while inside(desk.directory) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not inside(desk.directory)
    assert not [path for path in place.iterdir() if path.name.startswith("readside-")]


def quiet(text):
    for noise in ("Traceback", "Exception", "never retrieved", "was destroyed"):
        assert noise not in text, text


@pytest.mark.parametrize("number", SERVICE)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["servers"], "starting"),
        (["servers"], "they run until Ctrl-C"),
        (["run", "shop:app"], "starting"),
        (["run", "shop:app"], "streaming"),
    ],
)
def test_a_service_ends_when_asked(desk, place, arguments, words, number):
    running = desk.start(*arguments)
    running.until(words)
    code, took = running.stop(number)
    assert code == SERVICE[number]
    assert took < SECONDS
    quiet(running.text)
    nothing_left(desk, place)


@pytest.mark.parametrize("number", JOB)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo"], "starting"),
        (["demo"], "users at"),
        (["demo", "--users", "50", "--keep"], "Ctrl-C ends everything"),
        (["status", "shop:app", "--watch"], "relay"),
    ],
)
def test_a_job_ends_when_asked(desk, place, arguments, words, number):
    if "status" in arguments:
        assert desk.do("init", "shop:app").code == 0
    running = desk.start(*arguments)
    running.until(words)
    code, took = running.stop(number)
    assert code == JOB[number]
    assert took < SECONDS
    quiet(running.text)
    nothing_left(desk, place)


def test_ctrl_c_again_and_again_to_the_whole_group_as_a_terminal_sends_it(desk, place):
    running = desk.start("demo")
    running.until("users at")
    for _ in range(3):
        os.killpg(running.process.pid, signal.SIGINT)
    assert running.ended() == 130
    quiet(running.text)
    nothing_left(desk, place)


def test_no_server_outlives_a_killed_command(desk, place):
    running = desk.start("servers")
    running.until("they run until Ctrl-C")
    assert len(inside(desk.directory / ".readside")) > 3
    running.process.kill()
    nothing_left(desk, place)
    assert desk.do("init", "shop:app").code == 0, "the directory can be used again"


@pytest.mark.parametrize("seed", range(6))
def test_ctrl_c_at_any_moment(desk, place, seed):
    """Also before the first line, where it may be Python's own start that is interrupted."""
    chance = random.Random(seed)
    running = desk.start(*chance.choice([["demo"], ["servers"], ["run", "shop:app"]]))
    time.sleep(chance.uniform(0.1, 3.0))  # the moment is the subject of this test
    code, took = running.stop()
    assert code in {130, -signal.SIGINT}
    assert took < SECONDS
    quiet(running.text)
    nothing_left(desk, place)


def test_a_reader_that_has_seen_enough_is_no_error(desk):
    assert desk.do("init", "shop:app").code == 0
    program = Path(sys.executable).with_name("readside")
    pipe = f"{program} status shop:app --watch | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipe],
        cwd=desk.directory,
        env=desk.environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 141
    assert "relay" in done.stdout
    quiet(done.stderr)


def test_nohup_is_heeded(desk, place):
    desk.write("ignore.py", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    desk.write("kept.py", "import ignore\nfrom shop import app\n")
    running = desk.start("run", "kept:app")
    running.until("streaming")
    running.send(signal.SIGHUP)
    running.send(signal.SIGTERM)
    assert running.ended() == 0
