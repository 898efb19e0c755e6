"""Reads documents, and waits until they are as new as a token asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from readside.core.errors import HistoryLostError, ParkedError, StaleReadError
from readside.core.event import key_text
from readside.core.token import Token
from readside.core.view import ViewCodec, ViewT
from readside.ports.clock import Clock
from readside.ports.store import Reading, Store

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.02
#: Documents that are read again and again while their reader waits.
_FEW = 16


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
        deadline = self._clock.now() + timeout
        pause = _FIRST_PAUSE
        probing = token is not None and len(keys) > _FEW
        while True:
            # Of many documents, ask only for the checkpoints until these are there.
            wanted = () if probing else keys
            reading = await self._store.read(self._projection, wanted, partitions)
            if reading.halted:
                raise HistoryLostError(
                    f"Projection {self._projection} is halted: {reading.halted}",
                    mend="see: readside status",
                )
            missing = _behind(reading, token)
            if not missing and not probing:
                break
            if not missing:
                probing = False
                continue
            if self._clock.now() + pause > deadline:
                raise StaleReadError(
                    f"Projection {self._projection} has not reached {token} within {timeout:g} s"
                    f" (partitions {', '.join(map(str, missing))}).",
                    mend="read again later, allow more time, or see: readside status",
                )
            await self._clock.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        if reading.parked:
            raise ParkedError(
                f"{self._projection}:{min(reading.parked)} waits behind an event which cannot be applied.",
                mend="see: readside dead-letters list; or read it as it is, without a token",
            )
        return reading


def _behind(reading: Reading, token: Token | None) -> list[int]:
    if token is None:
        return []
    found = reading.checkpoints
    return [
        number
        for number in token.partitions
        if number not in found or found[number].position < token.position
    ]
