"""Real servers for the tests: one set a session, one app of its own for each test."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings

import readside
from readside.adapters.embedded import Addresses, EmbeddedServers
from readside.adapters.postgres.names import Names
from readside.ports.ending import end
from readside.service import Service

pytest.register_assert_rewrite("tests.core.baskets", "tests.embedded.groups")

for name in [name for name in os.environ if name.startswith("READSIDE_")]:
    del os.environ[name]


# No deadline, for a busy machine is no bug. READSIDE_ is taken, so the long run has its own name.
settings.register_profile(
    "short", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("short"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def servers() -> Iterator[Addresses]:
    """PostgreSQL, NATS and Valkey in a temporary directory, until the session ends."""
    group = EmbeddedServers(None)
    try:
        yield asyncio.run(group.start())
    finally:
        group.stop_now()


@pytest.fixture
def unique() -> str:
    """A name that no other test has."""
    return f"t{uuid4().hex[:10]}"


@pytest.fixture(params=["nats", "direct"])
def broker_url(request: pytest.FixtureRequest, servers: Addresses) -> str:
    return servers.broker if request.param == "nats" else "direct:"


@pytest.fixture(params=["redis", "postgresql"])
def store_url(request: pytest.FixtureRequest, servers: Addresses) -> str:
    return servers.read_store if request.param == "redis" else "postgresql:"


@pytest.fixture
def make_app(servers: Addresses, unique: str) -> Iterator[Callable[..., readside.App]]:
    """Makes apps which differ from those of other tests; their slots go at the end."""
    made: list[str] = []

    def make(
        broker: str | None = None,
        name: str | None = None,
        read_store: str | None = None,
        **settings: Any,
    ) -> readside.App:
        app = readside.App(
            name or unique,
            write_store=servers.write_store,
            broker=broker or servers.broker,
            read_store=read_store or servers.read_store,
            **settings,
        )
        made.append(app.name)
        return app

    yield make
    drop_slots(servers.write_store, made)


def drop_slots(dsn: str, apps: list[str]) -> None:
    """Free the replication slots of apps, whoever still holds them."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for app in set(apps):
            slot = Names(app).slot
            for _ in range(200):
                connection.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                    " WHERE slot_name = %s AND active",
                    [slot],
                )
                try:
                    connection.execute(
                        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                        " WHERE slot_name = %s",
                        [slot],
                    )
                except psycopg.errors.ObjectInUse:
                    continue
                break


@asynccontextmanager
async def running(app: readside.App, role: Any = "all") -> AsyncIterator[Service]:
    """Run a service of an app; what it raises, the test raises."""
    runtime = await app.runtime()
    await runtime.install()
    service = Service(runtime, app.projections, role)
    task = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield service
    finally:
        await end((task, ready))


@pytest.fixture
def run() -> Any:
    return running


@pytest.fixture
def here() -> Path:
    return Path(__file__).parent


@pytest.fixture
def readside_command() -> list[str]:
    return [sys.executable, "-m", "readside"]
