"""The ways to run one application: every combination of settings that makes sense, and the shop in each of them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats
import nats.js.errors
import psycopg
from redis.asyncio import Redis

from readside.adapters.embedded import Addresses

_SHOP = "examples.shop"
#: A database of Valkey that nobody else here uses.
_NUMBER = 7


# What each part of a way's name sets. The addresses of servers are filled in.
_CAPTURES = {
    "replication": {"READSIDE_CAPTURE": "replication"},
    "messages": {"READSIDE_CAPTURE": "replication", "READSIDE_OUTBOX": "message"},
    "polling": {"READSIDE_CAPTURE": "polling"},
}
_BROKERS = {
    "nats": {"READSIDE_BROKER": "{broker}"},
    "direct": {"READSIDE_BROKER": "direct:"},
}
_STORES = {
    "valkey": {"READSIDE_READ_STORE": "{valkey}"},
    "tables": {"READSIDE_READ_STORE": "postgresql:"},
}
#: Folded after the commit, by the service.
_AFTERWARDS = {
    "async": {"READSIDE_MODE": "async"},
    # Whoever is not heard in time is not stale but late, and a proof shall wait for a slow machine.
    "wait": {"READSIDE_MODE": "wait", "READSIDE_WAIT_TIMEOUT": "60"},
}
_INLINE = {"READSIDE_MODE": "inline"} | _BROKERS["direct"] | _STORES["tables"]


class Way(NamedTuple):
    """A name, and the settings that it stands for."""

    name: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return self.name

    @property
    def mode(self) -> str:
        """When its views change."""
        return self.settings["READSIDE_MODE"]


def ways() -> list[Way]:
    """All that make sense: a command that folds by itself needs no broker, and its views are in the write store."""
    found = [
        Way(f"{c}-{b}-{s}-{m}", _CAPTURES[c] | _BROKERS[b] | _STORES[s] | _AFTERWARDS[m])
        for c, b, s, m in product(_CAPTURES, _BROKERS, _STORES, _AFTERWARDS)
    ]
    return [*found, *(Way(f"{name}-inline", one | _INLINE) for name, one in _CAPTURES.items())]


class Place(NamedTuple):
    """The shop in one way: its modules, freshly imported, and the settings with which they were."""

    way: Way
    shop: Any
    commands: Any
    settings: Mapping[str, str]

    @property
    def dsn(self) -> str:
        """The write store."""
        return self.settings["READSIDE_WRITE_STORE"]


@asynccontextmanager
async def opened(way: Way, servers: Addresses) -> AsyncIterator[Place]:
    """The shop with empty tables and read models, in a database of its own; all is gone at the end."""
    dsn = urlsplit(servers.write_store)._replace(path="/shop").geturl()
    valkey = urlsplit(servers.read_store)._replace(path=f"/{_NUMBER}").geturl()
    addresses = {"broker": servers.broker, "valkey": valkey}
    settings = {name: value.format(**addresses) for name, value in way.settings.items()}
    settings["READSIDE_WRITE_STORE"] = dsn
    await _clear(servers, valkey)
    async with await psycopg.AsyncConnection.connect(servers.write_store, autocommit=True) as one:
        await one.execute("CREATE DATABASE shop")
    with _environment(settings):
        shop = _imported()
    commands = importlib.import_module(f"{_SHOP}.commands")
    try:
        await (await shop.app.runtime()).install()
        await commands.create_tables()
        yield Place(way, shop, commands, settings)
    finally:
        await shop.app.close()
        await _clear(servers, valkey)


def _imported() -> Any:
    """Import the shop as a new process would."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{_SHOP}.")]:
        del sys.modules[name]
    return importlib.import_module(_SHOP)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)


async def _clear(servers: Addresses, valkey: str) -> None:
    """Take everything away that a shop has left."""
    async with await psycopg.AsyncConnection.connect(servers.write_store, autocommit=True) as one:
        while await _drop_slot(one):  # whoever held it takes a moment to be gone
            pass
        await one.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
    client = await nats.connect(servers.broker)
    try:
        await client.jetstream().delete_stream("readside_shop")
    except nats.js.errors.NotFoundError:
        pass
    finally:
        await client.close()
    async with Redis.from_url(valkey) as redis:
        await redis.flushdb()


async def _drop_slot(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Drop the slot; whether it is still in use."""
    where = "FROM pg_replication_slots WHERE slot_name = 'readside_shop'"
    try:
        await connection.execute(f"SELECT pg_terminate_backend(active_pid) {where} AND active")
        await connection.execute(f"SELECT pg_drop_replication_slot(slot_name) {where}")
    except psycopg.errors.ObjectInUse:
        return True
    return False
