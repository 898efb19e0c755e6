"""The open connections of one app in one event loop, each opened when it is first needed."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg_pool import AsyncConnectionPool

from readside.adapters.postgres.connection import CONNECT_TIMEOUT, connect
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.names import checked_name
from readside.adapters.postgres.session import Session
from readside.core.errors import SchemaError
from readside.ports.clock import Clock, SystemClock
from readside.ports.ledger import Capture
from readside.ports.store import Store
from readside.settings import Settings
from readside.wiring import store_for

if TYPE_CHECKING:
    from readside.adapters.embedded import EmbeddedServers

log = logging.getLogger("readside")


class Addresses(NamedTuple):
    """Where the three servers are."""

    write_store: str
    broker: str
    read_store: str


class Runtime:
    """Opens and closes; everything it hands out is shared."""

    def __init__(self, app: str, settings: Settings, clock: Clock | None = None) -> None:
        self.app = checked_name(app)
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._servers: EmbeddedServers | None = None
        self._addresses: Addresses | None = None
        self._pool: AsyncConnectionPool[Any] | None = None
        self._store: Store | None = None
        self._capture: Capture | None = None

    async def addresses(self) -> Addresses:
        """Where the servers are; starts the embedded ones where nothing is configured."""
        async with self._lock:
            return await self._locate()

    async def _locate(self) -> Addresses:
        if self._addresses is None:
            settings = self.settings
            found = Addresses(settings.write_store, settings.broker, settings.read_store)
            if settings.embedded:
                # Imported only here: a production install has no embedded servers.
                from readside.adapters.embedded import EmbeddedServers  # noqa: PLC0415

                self._servers = EmbeddedServers(
                    Path(settings.directory), services=settings.embedded
                )
                own = await self._servers.start()
                found = Addresses(
                    found.write_store or own.write_store,
                    found.broker or own.broker,
                    found.read_store or own.read_store,
                )
            self._addresses = found
        return self._addresses

    async def pool(self) -> AsyncConnectionPool[Any]:
        """The application's connections to the write store."""
        async with self._lock:
            if self._pool is None:
                dsn = (await self._locate()).write_store
                # One plain connection first: its error is clearer than a pool's timeout.
                await (await connect(dsn, "check")).close()
                self._pool = AsyncConnectionPool(
                    dsn,
                    kwargs={
                        "autocommit": True,
                        "application_name": "readside app",
                        "connect_timeout": CONNECT_TIMEOUT,
                    },
                    min_size=1,
                    max_size=self.settings.pool_size,
                    open=False,
                    timeout=10,
                    name=f"readside {self.app}",
                )
                await self._pool.open()
            return self._pool

    async def capture(self) -> Capture:
        """The history which this app records into; installs it into an embedded server."""
        if self._capture is None:
            dsn = (await self.addresses()).write_store
            session = Session(dsn, "app")
            try:
                ledger = PostgresLedger(session, self.app)
                try:
                    self._capture = await ledger.register(self.app, [])
                except SchemaError:
                    if "postgres" not in self.settings.embedded:
                        raise
                    await self.install()
                    self._capture = await ledger.register(self.app, [])
            finally:
                await session.close()
        return self._capture

    async def install(self) -> list[str]:
        """Install readside's schema, publication and slot; returns what was done."""
        dsn = (await self.addresses()).write_store
        settings = self.settings
        return await install(
            dsn, self.app, settings.partitions, settings.max_payload, settings.capture
        )

    async def store(self) -> Store:
        """The read store."""
        async with self._lock:
            if self._store is None:
                store = store_for((await self._locate()).read_store)
                await store.open(self.app)
                self._store = store
            return self._store

    async def close(self) -> None:
        """Close everything that was opened."""
        async with self._lock:
            if self._pool is not None:
                await self._pool.close()
            if self._store is not None:
                await self._store.close()
            if self._servers is not None:
                await self._servers.stop()
            self._pool = self._store = self._servers = self._addresses = self._capture = None
