"""Whether the history that a relay was shipping still goes on."""

from __future__ import annotations

from typing import NamedTuple

from readside.core.position import Position


class Known(NamedTuple):
    """What was noted about the history when it was last shipped."""

    epoch: int
    system_identifier: str
    confirmed_lsn: int
    shipped_lsn: int


class Seen(NamedTuple):
    """What the database says about itself now."""

    system_identifier: str
    flushed_lsn: int
    slot_exists: bool
    #: None where the slot cannot say (it was never read).
    slot_confirmed_lsn: int | None
    #: PostgreSQL's word for a slot that lost its WAL, or empty.
    slot_lost: str


def restarted(known: Known, newest: Position, seen: Seen) -> str:
    """Say why the history does not go on from what is known, or return an empty text.

    Args:
        known: readside's notes, which a restore takes back together with the database.
        newest: the newest position that the broker holds, which a restore leaves alone.
        seen: the database now.

    A new timeline alone is no restart: after a failover the slot was either synchronised and
    carries on, or it does not exist, which is the case below.
    """
    if seen.system_identifier != known.system_identifier:
        return "the database is another cluster than before"
    if not seen.slot_exists:
        return "the replication slot is gone"
    if seen.slot_lost:
        return f"the replication slot was invalidated ({seen.slot_lost})"
    if newest.epoch > known.epoch:
        return "the broker holds a later history than the database knows"
    if newest.epoch == known.epoch and newest.lsn > seen.flushed_lsn:
        return "the broker holds records from after the end of the database's log"
    if seen.flushed_lsn < max(known.confirmed_lsn, known.shipped_lsn):
        return "the database went back to an earlier state"
    if seen.slot_confirmed_lsn is not None and seen.slot_confirmed_lsn > known.confirmed_lsn:
        return "the replication slot was advanced or re-created by somebody else"
    return ""
