"""What `readside run` runs: relay and projectors of an app, in the roles that were asked for."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Literal
from uuid import uuid4

from readside.adapters.postgres.capture import PostgresSource
from readside.adapters.postgres.connection import opened
from readside.adapters.postgres.leases import PostgresLeases
from readside.adapters.postgres.ledger import PostgresLedger
from readside.adapters.postgres.messages import check_admitted
from readside.adapters.postgres.parking import PostgresParking, forget_retried
from readside.adapters.postgres.partitions import tend_partitions
from readside.adapters.postgres.session import Session
from readside.core.backoff import Backoff
from readside.core.errors import ReadsideError, SettingsError, UnavailableError
from readside.core.projection import Projection
from readside.ports.broker import Broker
from readside.ports.ending import end
from readside.ports.ledger import Capture
from readside.ports.store import Store
from readside.ports.traits import Promise
from readside.projector.projector import Projector
from readside.projector.surroundings import Surroundings
from readside.relay.relay import Relay, RelaySettings
from readside.runtime import Addresses, Runtime
from readside.wiring import broker_for, store_for
from readside.wrappers.timed import Stopwatch

log = logging.getLogger("readside")

Role = Literal["all", "relay", "projector"]

_TEND_PARTITIONS_EVERY = 3600.0


class Service:
    """Relay and projectors of one app in one process, until cancelled.

    Args:
        say: told in plain words what is waited for and when it came.
        watch: measures every record on its way, for those who want to know where the time goes.
    """

    def __init__(
        self,
        runtime: Runtime,
        projections: Mapping[str, Projection[Any]],
        role: Role = "all",
        say: Callable[[str], None] | None = None,
        watch: Stopwatch | None = None,
    ) -> None:
        self._runtime = runtime
        #: Inline ones are folded by those who write.
        self._projections = {name: one for name, one in projections.items() if one.mode != "inline"}
        self._role: Role = role
        self._say = say or log.info
        self._watch = watch
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._sessions: list[Session] = []
        self.relay: Relay | None = None
        self.projector: Projector | None = None
        #: Set when the roles run.
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            RefusedError, SchemaError, SettingsError: something that waiting does not mend.
        """
        addresses = await self._runtime.addresses()
        broker = broker_for(addresses.broker)
        store = store_for(addresses.read_store, self._projections)
        if self._watch is not None:
            broker, store = self._watch.broker(broker), self._watch.store(store)
        direct = broker.traits.remembers is Promise.NEVER
        if direct and self._role != "all":
            raise SettingsError(
                f"Without a broker, --role {self._role} has nobody to talk to.",
                mend="run all roles in one process, or set READSIDE_BROKER=nats://…",
            )
        try:
            capture = await self._prepare(addresses, broker, store)
            await self._work(addresses, capture, broker, store, direct=direct)
        finally:
            await self._close(broker, store)

    async def _prepare(self, addresses: Addresses, broker: Broker, store: Store) -> Capture:
        """Wait for the servers, and stop at what waiting does not mend."""
        if "postgres" in self._runtime.settings.embedded:
            await self._runtime.install()
        session = self._session(addresses, "notes")
        ledger = PostgresLedger(session, self._runtime.app)
        names = list(self._projections)
        capture: Capture = await self._patiently(lambda: ledger.register(self._runtime.app, names))
        if capture.partitions != (wanted := self._runtime.settings.partitions):
            raise SettingsError(
                f"App {self._runtime.app} was installed with {capture.partitions} partitions,"
                f" not {wanted}.",
                mend=f"use partitions={capture.partitions}, here and where you write",
            )
        if self._role in ("all", "relay"):
            captures = await self._patiently(ledger.captures)
            if captures != (asked := self._runtime.settings.capture):
                raise SettingsError(
                    f"App {self._runtime.app} is installed for capture by {captures}, not {asked}.",
                    mend=f"run: readside init module:app, to change it, or use capture={captures}",
                )
            if self._runtime.settings.outbox == "message":
                await self._patiently(lambda: check_admitted(session, self._runtime.app))
            await self._patiently(lambda: ledger.capture(self._runtime.app))
        await self._patiently(lambda: broker.open(self._runtime.app, capture.partitions))
        await self._patiently(lambda: broker.check(self._runtime.settings.max_payload))
        await self._patiently(lambda: store.open(self._runtime.app, names))
        for name in await self._patiently(lambda: ledger.others(names)):
            log.warning(
                "projection %s is registered and not declared here: PostgreSQL keeps WAL for it."
                " If it is gone for good: readside forget module:app %s", name, name,
            )  # fmt: skip
        return capture

    async def _patiently(self, attempt: Callable[[], Any]) -> Any:
        backoff = Backoff(first=0.1)
        said = ""
        while True:
            try:
                result = await attempt()
            except UnavailableError as error:
                if str(error) != said:
                    self._say(f"waiting: {error}")
                    said = str(error)
                await self._runtime.clock.sleep(backoff.next(self._runtime.clock.chance()))
            else:
                if said:
                    self._say("there it is; going on")
                return result

    async def _work(
        self, addresses: Addresses, capture: Capture, broker: Broker, store: Store, *, direct: bool
    ) -> None:
        tasks: list[asyncio.Task[None]] = []
        if self._role in ("all", "projector"):
            self.projector = self._make_projector(addresses, capture, broker, store, alone=direct)
        if self._role in ("all", "relay"):
            self.relay = self._make_relay(addresses, broker, direct=direct)
            tasks += [
                asyncio.create_task(self.relay.run(), name="relay"),
                asyncio.create_task(self._tend_partitions(addresses), name="partitions"),
            ]
        if self.projector is not None:
            run = self._run_elected if direct else self.projector.run
            tasks.append(asyncio.create_task(run(), name="projector"))
        self.ready.set()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            try:
                await end(tasks)
            finally:
                if self.projector is not None:
                    await self.projector.close()

    def _make_projector(
        self,
        addresses: Addresses,
        capture: Capture,
        broker: Broker,
        store: Store,
        *,
        alone: bool,
    ) -> Projector:
        app, settings = self._runtime.app, self._runtime.settings
        around = Surroundings(
            broker,
            store,
            PostgresLedger(self._session(addresses, "progress"), app),
            PostgresParking(self._session(addresses, "parking"), app),
            PostgresLeases(self._session(addresses, "leases"), app, settings.lease_seconds),
            self.worker,
            self._runtime.clock,
            settle_delay=settings.settle_delay,
        )
        return Projector(
            self._projections,
            around,
            capture.partitions,
            alone=alone,
            lease_seconds=settings.lease_seconds,
        )

    def _make_relay(self, addresses: Addresses, broker: Broker, *, direct: bool) -> Relay:
        app, settings = self._runtime.app, self._runtime.settings
        return Relay(
            app,
            lambda epoch: PostgresSource(addresses.write_store, app, epoch, settings.lease_seconds),
            broker,
            PostgresLedger(self._session(addresses, "relay"), app, alone=not self._projections),
            self._runtime.clock,
            RelaySettings(retained_wal=settings.retained_wal_mb * 1024**2),
            before_shipping=self._elected if direct else None,
            applied=self.projector.newest if direct and self.projector else None,
        )

    async def _elected(self, rewound: bool) -> None:  # noqa: FBT001 - the relay's callback
        """Without a broker, whoever has the slot does all the work."""
        if self.projector is not None and not rewound:
            await self.projector.seize()

    async def _run_elected(self) -> None:
        """Project while this process has the slot; when another has it, give everything back."""
        if self.relay is None or self.projector is None:
            return
        relay = self.relay
        await relay.active.wait()
        # Who is standby hears nothing: its lanes would hold units and stand still.
        await self.projector.run(lambda: relay.state != "standby")

    async def _tend_partitions(self, addresses: Addresses) -> None:
        retention = dt.timedelta(days=self._runtime.settings.retention_days)
        while True:
            try:
                async with opened(addresses.write_store, "partitions") as connection:
                    done: list[str] = []
                    app = self._runtime.app
                    complete = await tend_partitions(connection, app, retention, done)
                    await forget_retried(connection, app, retention)
                for what in done:
                    log.info(what)
                await self._runtime.clock.sleep(_TEND_PARTITIONS_EVERY if complete else 30.0)
            except ReadsideError as error:
                log.warning("outbox partitions: %s", error)
                await self._runtime.clock.sleep(30.0)

    def _session(self, addresses: Addresses, purpose: str) -> Session:
        # Who polls may have nothing but a pooler.
        plain = self._runtime.settings.capture == "polling"
        session = Session(addresses.write_store, purpose, plain=plain)
        self._sessions.append(session)
        return session

    async def _close(self, broker: Broker, store: Store) -> None:
        closing = [broker.close(), store.close(), *(session.close() for session in self._sessions)]
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.debug("closing: %r", outcome)
