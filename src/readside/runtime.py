"""The open connections of one app in one event loop, each opened when it is first needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg_pool import AsyncConnectionPool

from readside.adapters.postgres.connection import CONNECT_TIMEOUT, connect
from readside.adapters.postgres.installation import install
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.messages import check_admitted
from readside.adapters.postgres.names import checked_name
from readside.adapters.postgres.session import Session
from readside.adapters.postgres_store.store import PostgresStore
from readside.core.errors import RefusedError, SchemaError, SettingsError
from readside.core.projection import Projection
from readside.ports.clock import Clock, SystemClock
from readside.ports.ledger import Capture
from readside.ports.store import Store, Tables
from readside.query.watches import Watches
from readside.settings import Settings
from readside.wiring import store_for

if TYPE_CHECKING:
    from readside.adapters.embedded import EmbeddedServers

#: The read store's URL which means the write store's database.
_SAME_DATABASE = "postgresql:"

log = logging.getLogger("readside")


class Addresses(NamedTuple):
    """Where the three servers are."""

    write_store: str
    broker: str
    read_store: str


class Runtime:
    """Opens and closes; everything it hands out is shared."""

    def __init__(
        self,
        app: str,
        settings: Settings,
        clock: Clock | None = None,
        projections: Mapping[str, Projection[Any]] | None = None,
    ) -> None:
        self.app = checked_name(app)
        #: Those of the app, as they are at any time.
        self.projections: Mapping[str, Projection[Any]] = {} if projections is None else projections
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        #: Of its own: a read store that does not answer must not keep anybody from writing.
        self._store_lock = asyncio.Lock()
        self._servers: EmbeddedServers | None = None
        self._addresses: Addresses | None = None
        self._pool: AsyncConnectionPool[Any] | None = None
        self._store: Store | None = None
        self._inline: PostgresStore | None = None
        self._capture: Capture | None = None
        #: For those who wait until projections have what was written.
        self.watches = Watches(self.store, self.clock)

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
            if found.read_store == _SAME_DATABASE:
                found = found._replace(read_store=found.write_store)
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
            embedded = "postgres" in self.settings.embedded
            dsn = (await self.addresses()).write_store
            session = Session(dsn, "app")
            try:
                ledger = PostgresLedger(session, self.app)
                try:
                    capture = await self._registered(ledger, session)
                except (SchemaError, SettingsError):
                    if not embedded:
                        raise
                    await self.install()
                    capture = await self._registered(ledger, session)
                if embedded and self._has_inline:
                    await (await self.inline_store()).prepare(self.app)
                self._capture = capture
            finally:
                await session.close()
        return self._capture

    async def _registered(self, ledger: PostgresLedger, session: Session) -> Capture:
        capture = await ledger.register(self.app, [])
        if self.settings.outbox == "message":
            await check_admitted(session, self.app)
        return capture

    @property
    def _has_inline(self) -> bool:
        return any(one.mode == "inline" for one in self.projections.values())

    async def install(self) -> list[str]:
        """Install readside's schema, publication and slot, and the views' tables; returns what was done."""
        addresses = await self.addresses()
        settings = self.settings
        done = await install(
            addresses.write_store,
            self.app,
            settings.partitions,
            settings.max_payload,
            settings.capture,
            outbox=settings.outbox,
        )
        store = store_for(addresses.read_store, self.projections)
        try:
            if isinstance(store, Tables):
                done += await store.prepare(self.app)
        finally:
            await store.close()
        await self._refuse_left_behind()
        if self._has_inline:
            done += await (await self.inline_store()).prepare(self.app)
        return done

    async def _refuse_left_behind(self) -> None:
        """An inline projection that follows the log from now on leaves a table which nobody changes any more."""
        followed = [one.name for one in self.projections.values() if one.mode != "inline"]
        inline = PostgresStore((await self.addresses()).write_store, inline=True)
        try:
            await inline.open(self.app)
            held = [name for name in followed if await inline.holds(name)]
        except RefusedError:
            return  # who may not look at another app's notes has none there
        finally:
            await inline.close()
        if held:
            raise RefusedError(
                f"Projection {held[0]} was inline, and its table in the write store would go stale.",
                mend="give it another name, or first:"
                f" readside forget module:app {held[0]} --documents",
            )

    async def store(self) -> Store:
        """The read store."""
        addresses = await self.addresses()
        async with self._store_lock:
            if self._store is None:
                store = store_for(addresses.read_store, self.projections)
                try:
                    await store.open(self.app)
                except BaseException:
                    await store.close()
                    raise
                self._store = store
            return self._store

    async def inline_store(self) -> PostgresStore:
        """The inline projections, which are in the write store."""
        async with self._lock:
            if self._inline is None:
                self._inline = PostgresStore((await self._locate()).write_store, inline=True)
                self._inline.declare(self.projections)
                await self._inline.open(self.app)
            return self._inline

    async def close(self) -> None:
        """Close everything that was opened."""
        await self.watches.close()
        async with self._lock, self._store_lock:
            if self._pool is not None:
                await self._pool.close()
            if self._store is not None:
                await self._store.close()
            if self._inline is not None:
                await self._inline.close()
            if self._servers is not None:
                await self._servers.stop()
            self._inline = None
            self._pool = self._store = self._servers = self._addresses = self._capture = None
