"""Whether the history that a relay was shipping still goes on."""

from __future__ import annotations

from typing import NamedTuple

from readside.core.position import Position, settled


class Known(NamedTuple):
    """What was noted about the history when it was last shipped."""

    epoch: int
    system_identifier: str
    timeline: int
    confirmed_lsn: int
    shipped_lsn: int


class Seen(NamedTuple):
    """What the database says about itself now."""

    system_identifier: str
    timeline: int
    #: Where the log left the known timeline for a newer one; None if it did not.
    left_at: int | None
    flushed_lsn: int
    slot_exists: bool
    #: None where the slot cannot say (it was never read).
    slot_confirmed_lsn: int | None
    #: PostgreSQL's word for a slot that lost its WAL, or empty.
    slot_lost: str
    #: The last tick, where polling captures: its records stand before it, so that none can stand there
    #: or later. None where a slot captures.
    last_tick: int | None = None


def restarted(known: Known, newest: Position, seen: Seen) -> str:
    """Say why the history does not go on from what is known, or return an empty text.

    Args:
        known: readside's notes, which a restore takes back together with the database.
        newest: the newest position that was shipped: in the broker, or applied in the read store where
            no broker remembers. A restore of the database leaves these alone.
        seen: the database now.

    A new timeline alone is no restart: after a failover a slot that was synchronised carries on,
    if nothing was shipped that the new primary never had.
    """
    if seen.system_identifier != known.system_identifier:
        return "the database is another cluster than before"
    shipped = max(known.confirmed_lsn, known.shipped_lsn)
    if newest.epoch == known.epoch:
        shipped = max(shipped, newest.lsn)
    if seen.left_at is not None and seen.left_at < shipped:
        return "events were shipped which the database lost in a failover or a restore"
    if seen.timeline < known.timeline:
        return "the database went back to an earlier timeline"
    if not seen.slot_exists:
        return "the replication slot is gone"
    if seen.slot_lost:
        return f"the replication slot was invalidated ({seen.slot_lost})"
    if newest.epoch > known.epoch:
        return "events were shipped of a later history than the database knows"
    if (
        seen.last_tick is not None
        and newest.epoch == known.epoch
        and newest > settled(known.epoch, seen.last_tick)
    ):
        return "events were shipped of a tick which the database lost"
    if newest.epoch == known.epoch and newest.lsn > seen.flushed_lsn:
        return "events were shipped from after the end of the database's log"
    if seen.flushed_lsn < max(known.confirmed_lsn, known.shipped_lsn):
        return "the database went back to an earlier state"
    if seen.slot_confirmed_lsn is not None and seen.slot_confirmed_lsn > known.confirmed_lsn:
        return "the replication slot was advanced or re-created by somebody else"
    return ""
