"""Redis or Valkey as read store: plain JSON under plain keys, one script a batch.

<projection>:<key>                         the document
readside:<projection>:app                  the app that they belong to
readside:<app>:<projection>:positions      hash: key -> the positions a document contains
readside:<app>:<projection>:checkpoints    hash: partition -> checkpoint
readside:<app>:<projection>:parked         hash: key -> partition:parking of the document, separated by blanks
readside:<app>:<projection>:halted         hash: partition -> why the projection must not be trusted
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any, ClassVar
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis import exceptions as failures

from readside.adapters.redis.arguments import arguments_of, name_of
from readside.adapters.redis.packing import packing
from readside.core.errors import FencedError, ReadsideError, RefusedError, UnavailableError
from readside.core.folding import Batch, Stored
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Reading, StoreTraits
from readside.ports.traits import Promise

log = logging.getLogger("readside.redis")


class Script:
    """A Lua script of this package."""

    def __init__(self, name: str) -> None:
        self.text = (resources.files("readside.adapters.redis") / name).read_text(encoding="utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_APPLY = Script("apply.lua")
_UNPARK = Script("unpark.lua")
_SEIZE = Script("seize.lua")
_EMPTY = Script("empty.lua")
_RELEASE = Script("release.lua")
#: What a server says that is not the primary, or not any more.
_DEMOTED = (failures.ReadOnlyError, failures.MasterDownError)
#: Documents that a reset removes at once.
_AT_ONCE = 1000
#: Field of the halted hash while a reset is under way; no partition is called so.
_RESET = "reset"
_SAFE_POLICIES = ("noeviction",)
#: The server's words for which redis-py has classes, whose texts are without them.
_WORDS: dict[type[Exception], str] = {
    failures.OutOfMemoryError: "OOM ",
    failures.BusyLoadingError: "LOADING ",
    failures.MasterDownError: "MASTERDOWN ",
    failures.ReadOnlyError: "READONLY ",
    failures.TryAgainError: "TRYAGAIN ",
}
_AWAIT = "it is tried again; see the server's log for more"
#: Where the server is there, and has to be waited for: what mends it.
_BACKPRESSURE = {
    "OOM": "give the server more memory (maxmemory); it is tried again",
    "LOADING": _AWAIT,
    "BUSY": _AWAIT,
    "MASTERDOWN": "let READSIDE_READ_STORE name the primary; it is tried again",
    "READONLY": "let READSIDE_READ_STORE name the primary; it is tried again",
    "TRYAGAIN": _AWAIT,
    "MISCONF": _AWAIT,
    "NOREPLICAS": _AWAIT,
}


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
        pool: Any = redis.ConnectionPool.from_url(
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
        pool.connection_class = packing(pool.connection_class)
        self._client: Any = redis.Redis.from_pool(pool)
        self._app = ""

    async def open(self, app: str, projections: Sequence[str] = ()) -> None:
        """See ports.store."""
        self._app = app
        async with self._translated():
            await self._client.ping()  # tells what is wrong with the URL
            for projection in projections:
                await self._own(projection)
            try:
                found: dict[str, Any] = await self._client.config_get("maxmemory-policy")
            except failures.ResponseError:
                log.info("%s does not let us see its maxmemory-policy", self._server)
                return
        policy = found.get("maxmemory-policy", "noeviction")
        if policy not in _SAFE_POLICIES:
            raise RefusedError(
                f"{self._server} evicts documents (maxmemory-policy {policy}).",
                mend="CONFIG SET maxmemory-policy noeviction",
            )

    async def _own(self, projection: str) -> None:
        """Make sure that no other app keeps documents under the same plain keys."""
        name = f"readside:{projection}:app"
        await self._client.setnx(name, self._app)
        owner = (await self._client.get(name) or b"").decode()
        if owner not in ("", self._app):
            raise RefusedError(
                f"{self._server}: the documents {projection}:… belong to app {owner}.",
                mend=f"use another database of the server, or another name; or: DEL {name}",
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
        return _checkpoints(partitions, found)

    async def load(
        self, projection: str, keys: Sequence[str], *, documents: bool = True
    ) -> list[Stored]:
        """See ports.store."""
        if not keys:
            return []
        if not documents:
            async with self._translated():
                found = await self._client.hmget(self._name(projection, "positions"), list(keys))
            return [Stored(None, _text(text)) for text in found]
        async with self._translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.mget([f"{projection}:{key}" for key in keys])
            pipe.hmget(self._name(projection, "positions"), list(keys))
            bodies, positions = await pipe.execute()
        return [Stored(body, _text(text)) for body, text in zip(bodies, positions, strict=True)]

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store."""
        keys, values = arguments_of(batch, self._app)
        async with self._translated():
            answer = await self._evaluate(_APPLY, len(keys), [*keys, *values])
        return Outcome[answer.decode()]

    async def _evaluate(self, script: Script, keys: int, arguments: Sequence[str | bytes]) -> Any:
        # The server's cache of scripts is volatile: send the text where it is unknown.
        execute: Any = self._client.execute_command
        try:
            return await execute("EVALSHA", script.digest, keys, *arguments)
        except failures.NoScriptError:
            return await execute("EVAL", script.text, keys, *arguments)

    async def read(
        self,
        projection: str,
        keys: Sequence[str],
        partitions: Sequence[int] = (),
        *,
        documents: bool = True,
    ) -> Reading:
        """See ports.store."""
        # One transaction where it matters: documents, checkpoints and parkings of one moment.
        pipe = self._client.pipeline(transaction=bool(partitions))
        pipe.hvals(self._name(projection, "halted"))
        if keys and documents:
            pipe.mget([f"{projection}:{key}" for key in keys])
        if partitions:
            pipe.hmget(self._name(projection, "checkpoints"), [str(n) for n in partitions])
        if partitions and keys:
            pipe.hmget(self._name(projection, "parked"), list(keys))
        async with self._translated(), pipe:
            halted, *answers = await pipe.execute()
        bodies = answers.pop(0) if keys and documents else [None] * len(keys)
        checkpoints = answers.pop(0) if partitions else []
        parked = answers.pop(0) if answers else []
        return Reading(
            bodies,
            halted[0].decode() if halted else "",
            _checkpoints(partitions, checkpoints),
            frozenset(
                key
                for key, entries in zip(keys, parked, strict=False)
                if entries and _concerns(entries.decode(), partitions)
            ),
        )

    async def halt(self, projection: str, partition: int, reason: str) -> None:
        """See ports.store."""
        name = self._name(projection, "halted")
        async with self._translated():
            if reason:
                await self._client.hset(name, str(partition), reason)
            else:
                await self._client.hdel(name, str(partition))

    async def parked(self, projection: str, partition: int) -> Mapping[str, str]:
        """See ports.store."""
        async with self._translated():
            found = await self._client.hgetall(self._name(projection, "parked"))
        pairs = (
            (key.decode(), entry.partition(":"))
            for key, entries in found.items()
            for entry in entries.decode().split()
        )
        return {key: parking for key, (number, _, parking) in pairs if number == str(partition)}

    async def unpark(self, projection: str, partition: int, key: str, parking: str) -> None:
        """See ports.store."""
        arguments = [self._name(projection, "parked"), key, f"{partition}:{parking}"]
        async with self._translated():
            await self._evaluate(_UNPARK, 1, arguments)

    async def reset(self, projection: str, checkpoints: Mapping[int, Checkpoint] | None) -> int:
        """See ports.store."""
        names = {
            what: self._name(projection, what)
            for what in ("checkpoints", "positions", "parked", "halted")
        }
        begins = {str(number): found.encode() for number, found in (checkpoints or {}).items()}
        pairs = [part for pair in begins.items() for part in pair]
        reason = "it is being emptied; if that was interrupted, repeat: readside reset"
        gone = [names["positions"], names["parked"], names["halted"]]
        if checkpoints is None:
            gone.append(f"readside:{projection}:app")
        async with self._translated():
            seized = [names["checkpoints"], names["halted"], _RESET, reason, *pairs]
            _insist(await self._evaluate(_SEIZE, 2, seized), projection)
            removed = await self._empty(projection, names, pairs)
            released = [names["checkpoints"], *gone]
            _insist(await self._evaluate(_RELEASE, len(released), [*released, *pairs]), projection)
        return removed

    async def _empty(self, projection: str, names: Mapping[str, str], pairs: Sequence[str]) -> int:
        """Remove documents and positions, as long as nobody else has moved a checkpoint."""
        expected = [str(len(pairs) // 2), *pairs]
        removed = 0
        cursor = 0
        while True:
            cursor, found = await self._client.hscan(names["positions"], cursor, count=_AT_ONCE)
            keys = [projection.encode() + b":" + field for field in found]
            named = [names["checkpoints"], names["positions"], *keys]
            answer: int = await self._evaluate(_EMPTY, len(named), [*named, *expected, *found])
            _insist(answer >= 0, projection)
            removed += answer
            if cursor == 0:
                return removed

    async def close(self) -> None:
        """See ports.store."""
        await self._client.aclose()

    def _name(self, projection: str, what: str) -> str:
        return name_of(self._app, projection, what)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (failures.RedisError, OSError, TimeoutError) as error:
            if isinstance(error, _DEMOTED):
                await self._leave()
            raise self._translate(error) from error
        except RuntimeError as error:
            # What uvloop raises when redis-py writes to a connection that is just lost.
            if "closed" not in str(error):
                raise
            raise self._translate(error) from error

    async def _leave(self) -> None:
        """Give up what is connected: behind the same address there may be another primary by now."""
        with suppress(failures.RedisError, OSError):
            # Those in use belong to others, who come here by themselves.
            await self._client.connection_pool.disconnect(inuse_connections=False)

    def _translate(self, error: Exception) -> ReadsideError:
        said = _WORDS.get(type(error), "") + " ".join(str(error).split())
        text = f"{self._server}: {said or type(error).__name__}"
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
        mend = next((mend for word, mend in _BACKPRESSURE.items() if word in said), "")
        if mend:
            return UnavailableError(text, mend=mend)
        if isinstance(error, failures.ResponseError):
            return RefusedError(text, mend="see the server's log")
        return UnavailableError(text, mend="start it, or check READSIDE_READ_STORE")


def _text(found: bytes | None) -> str:
    # What is no text at all is no text of positions either: whoever reads them says so.
    return found.decode(errors="replace") if found else ""


def _insist(held: object, projection: str) -> None:
    if not held:
        raise FencedError(
            f"Somebody newer works on {projection}.",
            mend="repeat the command",
        )


def _concerns(entries: str, partitions: Sequence[int]) -> bool:
    return any(int(entry.partition(":")[0]) in partitions for entry in entries.split())


def _checkpoints(partitions: Sequence[int], found: Sequence[bytes | None]) -> dict[int, Checkpoint]:
    return {
        number: Checkpoint.decode(text.decode())
        for number, text in zip(partitions, found, strict=True)
        if text is not None
    }
