"""Redis or Valkey as read store: plain JSON under plain keys, one script a batch.

<projection>:<key>                         the document
readside:<app>:<projection>:positions      hash: key -> the positions a document contains
readside:<app>:<projection>:checkpoints    hash: partition -> checkpoint
readside:<app>:<projection>:halted         why the projection must not be trusted, if so
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, ClassVar
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis import exceptions as failures

from readside.core.errors import ReadsideError, RefusedError, UnavailableError
from readside.core.folding import Batch, Stored
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Reading, StoreTraits
from readside.ports.traits import Promise

_SCRIPT = (resources.files("readside.adapters.redis") / "apply.lua").read_text(encoding="utf-8")
_DIGEST = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_SAFE_POLICIES = ("noeviction",)
_BACKPRESSURE = (
    "OOM",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "READONLY",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
)


class RedisStore:
    """One Redis or Valkey server, or the primary of a replicated one.

    Args:
        url: ``redis://user:password@host:port/database`` or ``rediss://`` for TLS.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(
        applies_atomically=Promise.KEPT,
        # appendfsync always; the default loses up to a second, or minutes without appendonly.
        durable=Promise.CONFIGURED,
    )

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = f"Redis at {parts.hostname}:{parts.port or 6379}"
        scheme = "rediss" if parts.scheme == "rediss" else "redis"
        # A cancelled command drops its connection, so a late answer can never be taken for another's.
        self._client: Any = redis.Redis.from_url(
            parts._replace(scheme=scheme).geturl(),
            socket_connect_timeout=3,
            socket_timeout=15,
            socket_keepalive=True,
            health_check_interval=0,
            retry_on_timeout=False,
            retry=None,
            protocol=2,
            client_name="readside",
        )
        self._app = ""

    async def open(self, app: str) -> None:
        """See ports.store."""
        self._app = app
        async with self._translated():
            try:
                found: dict[str, Any] = await self._client.config_get("maxmemory-policy")
            except failures.ResponseError:
                return  # CONFIG is not allowed here; `doctor` cannot look either
        policy = found.get("maxmemory-policy", "noeviction")
        if policy not in _SAFE_POLICIES:
            raise RefusedError(
                f"{self._server} evicts documents (maxmemory-policy {policy}).",
                mend="CONFIG SET maxmemory-policy noeviction",
            )

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """See ports.store."""
        if not partitions:
            return {}
        async with self._translated():
            found: list[bytes | None] = await self._client.hmget(
                self._name(projection, "checkpoints"), [str(number) for number in partitions]
            )
        return {
            number: Checkpoint.decode(text.decode())
            for number, text in zip(partitions, found, strict=True)
            if text is not None
        }

    async def load(self, projection: str, keys: Sequence[str]) -> list[Stored]:
        """See ports.store."""
        if not keys:
            return []
        async with self._translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.mget([f"{projection}:{key}" for key in keys])
            pipe.hmget(self._name(projection, "positions"), list(keys))
            documents, positions = await pipe.execute()
        return [
            Stored(document, text.decode() if text else "")
            for document, text in zip(documents, positions, strict=True)
        ]

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store."""
        name = batch.projection
        keys = [self._name(name, "checkpoints"), self._name(name, "positions")]
        values: list[str | bytes] = [
            str(batch.partition),
            batch.expected.encode() if batch.expected else "",
            batch.checkpoint.encode() if batch.checkpoint else "",
            str(len(batch.writes)),
        ]
        for key, expected, positions, document in batch.writes:
            keys.append(f"{name}:{key}")
            values += (key, expected, positions, b"-" if document is None else b"=" + document)
        async with self._translated():
            answer = await self._evaluate(len(keys), [*keys, *values])
        return Outcome[answer.decode()]

    async def _evaluate(self, keys: int, arguments: Sequence[str | bytes]) -> bytes:
        # The server's cache of scripts is volatile: send the text where it is unknown.
        execute: Any = self._client.execute_command
        try:
            answer = await execute("EVALSHA", _DIGEST, keys, *arguments)
        except failures.NoScriptError:
            answer = await execute("EVAL", _SCRIPT, keys, *arguments)
        return bytes(answer)

    async def read(self, projection: str, keys: Sequence[str]) -> Reading:
        """See ports.store."""
        async with self._translated():
            *documents, halted = await self._client.mget(
                [*(f"{projection}:{key}" for key in keys), self._name(projection, "halted")]
            )
        return Reading(documents, halted.decode() if halted else "")

    async def halt(self, projection: str, reason: str) -> None:
        """See ports.store."""
        async with self._translated():
            if reason:
                await self._client.set(self._name(projection, "halted"), reason)
            else:
                await self._client.delete(self._name(projection, "halted"))

    async def close(self) -> None:
        """See ports.store."""
        await self._client.aclose()

    def _name(self, projection: str, what: str) -> str:
        return f"readside:{self._app}:{projection}:{what}"

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (failures.RedisError, OSError, TimeoutError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> ReadsideError:
        text = f"{self._server}: {' '.join(str(error).split()) or type(error).__name__}"
        if (
            isinstance(error, failures.AuthenticationError)
            or "NOAUTH" in text
            or "WRONGPASS" in text
        ):
            return RefusedError(text, mend="check user and password in READSIDE_READ_STORE")
        if isinstance(error, failures.NoPermissionError):
            return RefusedError(
                text, mend="let readside's user read and write its keys (ACL SETUSER)"
            )
        if isinstance(error, failures.ResponseError) and not any(
            word in text for word in _BACKPRESSURE
        ):
            return RefusedError(text, mend="see the server's log")
        return UnavailableError(text, mend="start it, or check READSIDE_READ_STORE")
