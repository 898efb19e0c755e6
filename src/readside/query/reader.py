"""Reads documents, and waits until they are as new as a token asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from readside.core.event import key_text
from readside.core.token import Token
from readside.core.view import ViewCodec, ViewT
from readside.ports.clock import Clock
from readside.ports.store import Reading, Store
from readside.query.freshness import FEW, behind, halted, parked, pause_after, stale


class Reader(Generic[ViewT]):
    """Reads one projection from its store, and from nowhere else."""

    def __init__(
        self, projection: str, codec: ViewCodec[ViewT], store: Store, clock: Clock
    ) -> None:
        self._projection = projection
        self._codec = codec
        self._store = store
        self._clock = clock

    async def get_many(
        self, keys: Sequence[object], after: Token | None, timeout: float
    ) -> list[ViewT | None]:
        """The views of these keys, in their order; None where there is none.

        Raises:
            StaleReadError: the projection has not reached `after` within `timeout` seconds.
            ParkedError: `after` is reached, but one of the documents is parked.
            HistoryLostError: the projection is wrong and has to be rebuilt.
            UnavailableError: the read store is away.
        """
        texts = [key_text(key) for key in keys]
        reading = await self._read(texts, after, timeout)
        decode = self._codec.decode
        return [None if document is None else decode(document) for document in reading.documents]

    async def _read(self, keys: Sequence[str], token: Token | None, timeout: float) -> Reading:
        """Read until the documents, at the moment they are read, are as new as the token."""
        partitions = token.partitions if token else ()
        began = self._clock.now()
        probing = token is not None and len(keys) > FEW
        while True:
            # Of many documents, ask only for the checkpoints until these are there.
            wanted = () if probing else keys
            reading = await self._store.read(self._projection, wanted, partitions)
            if reading.halted:
                raise halted(self._projection, reading)
            missing = behind(reading, token)
            if not missing and not probing:
                break
            if not missing:
                probing = False
                continue
            waited = self._clock.now() - began
            pause = pause_after(waited)
            if token is not None and waited + pause > timeout:
                raise stale(self._projection, token, timeout, missing)
            await self._clock.sleep(pause)
        if reading.parked:
            raise parked(self._projection, min(reading.parked))
        return reading
