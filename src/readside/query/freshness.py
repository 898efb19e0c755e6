"""Whether a reading is as new as a token asks for; how to wait for that, and what to say where it is not."""

from __future__ import annotations

from typing import Final

from readside.core.errors import HistoryLostError, ParkedError, StaleReadError
from readside.core.folding import UNROUTED
from readside.core.token import Token
from readside.ports.store import Reading

#: Documents that are asked for again and again while somebody waits for them.
FEW: Final = 16
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.02


def pause_after(waited: float) -> float:
    """Seconds until the next look, for one who has waited so long."""
    return min(_LONGEST_PAUSE, max(_FIRST_PAUSE, waited / 2))


def behind(reading: Reading, token: Token | None) -> list[int]:
    """The partitions of a token which have not reached it."""
    if token is None:
        return []
    found = reading.checkpoints
    return [
        number
        for number in token.partitions
        if number not in found or found[number].position < token.position
    ]


def stale(projection: str, token: Token, timeout: float, missing: list[int]) -> StaleReadError:
    """What to say at the deadline."""
    return StaleReadError(
        f"Projection {projection} has not reached {token} within {timeout:g} s"
        f" (partitions {', '.join(map(str, missing))}).",
        mend="read again later, allow more time, or see: readside status",
    )


def halted(projection: str, reading: Reading) -> HistoryLostError:
    """What to say where the projection must not be trusted."""
    return HistoryLostError(
        f"Projection {projection} is halted: {reading.halted}", mend="see: readside status"
    )


def parked(projection: str, key: str) -> ParkedError:
    """What to say of a document that waits behind an event."""
    where = f"{projection}:{key}"
    if key.startswith(UNROUTED):
        where = f"{projection}: what happened to {key[len(UNROUTED) :]}, whose documents nobody can tell,"
    return ParkedError(
        f"{where} waits behind an event which cannot be applied.",
        mend="see: readside dead-letters list; or read it as it is, without a token",
    )
