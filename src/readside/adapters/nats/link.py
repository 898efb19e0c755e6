"""The connection to NATS, shared by everything in a process, and its errors in readside's words."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from nats.errors import Error as NatsError
from nats.errors import NoServersError
from nats.js.errors import APIError, ServiceUnavailableError

from readside.adapters.nats.express import Express
from readside.core.errors import ReadsideError, RefusedError, UnavailableError

log = logging.getLogger("readside.nats")

#: Seconds after which a silent server counts as away.
PATIENCE = 5.0

#: What a lost connection looks like; a RuntimeError is uvloop's, of a transport that it has closed.
FAILURES = (NatsError, OSError, TimeoutError, RuntimeError)


class Link:
    """One connection, opened again by whoever needs it after a failure.

    The client's own reconnection is off: it would buffer what was published and deliver some of
    it later; readside publishes again from what it knows instead.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = asyncio.Lock()
        self._client: Express | None = None
        self._last_error: Exception | None = None

    @property
    def server(self) -> str:
        """The server's name without secrets."""
        parts = urlsplit(self._url)
        return f"NATS at {parts.hostname}:{parts.port or 4222}"

    async def client(self) -> Express:
        """The connected client.

        Raises:
            UnavailableError, RefusedError: no connection can be had.
        """
        async with self._lock:
            if self._client is not None and self._client.is_connected:
                return self._client
            await self._drop()
            self._last_error = None
            try:
                # Kept before it connects: whoever is interrupted here still closes it.
                client = self._client = Express()
                await client.connect(
                    self._url,
                    name="readside",
                    connect_timeout=3,
                    allow_reconnect=False,
                    # 0 would mean: for ever, and without a pause.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=3,
                    max_outstanding_pings=2,
                    error_cb=self._note,
                    # Ours are checked where they are made, and a check costs a tenth of a publish.
                    skip_subject_validation=True,
                )
            except (*FAILURES, ValueError) as error:
                raise self.translate(self._last_error or error) from error
            return client

    async def _note(self, error: Exception) -> None:
        self._last_error = error
        log.debug("nats: %r", error)

    def translate(self, error: Exception) -> ReadsideError:
        """Find readside's error for one of nats-py's; what is none of those is raised as it is."""
        if isinstance(error, RuntimeError) and "closed" not in str(error):
            raise error
        text = f"{self.server}: {' '.join(str(error).split()) or type(error).__name__}"
        if "authorization violation" in text.lower() or "permissions violation" in text.lower():
            return RefusedError(
                text, mend="check user, password and permissions in READSIDE_BROKER"
            )
        if isinstance(error, ServiceUnavailableError) or "jetstream not enabled" in text.lower():
            return RefusedError(
                f"{self.server} runs without JetStream.", mend="start it with: nats-server -js"
            )
        if isinstance(error, (NoServersError, OSError)):
            return UnavailableError(
                f"{self.server} cannot be reached.", mend="start it, or check READSIDE_BROKER"
            )
        if isinstance(error, APIError):
            return UnavailableError(f"{self.server}: {error.description}")
        return UnavailableError(text)

    async def close(self) -> None:
        """Disconnect."""
        async with self._lock:
            await self._drop()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None and client.is_closed:
            _sweep(client)
        elif client is not None:
            try:
                async with asyncio.timeout(1):
                    await client.close()
            except FAILURES as error:
                log.debug("closing: %r", error)


def _sweep(client: Express) -> None:
    """End what a client leaves behind whose connection broke while it was writing.

    nats-py closes itself then, and on uvloop its last write raises what it does not expect: its
    tasks end with an error that nobody looks at, or do not end at all.
    """
    names = ("_flusher_task", "_reading_task", "_ping_interval_task")
    tasks = [getattr(client, name, None) for name in names]
    subscriptions = getattr(client, "_subs", {}).values()
    tasks += [getattr(one, "_wait_for_msgs_task", None) for one in subscriptions]
    for task in tasks:
        if task is None:
            continue
        if task.done():
            _ = task.cancelled() or task.exception()  # looked at
        else:
            task.cancel()
