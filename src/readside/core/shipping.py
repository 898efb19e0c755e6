"""What the relay sends: stamped records, without those that the broker already has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from readside.core.chain import Chain, Head
from readside.core.lagging import Lagging, Sample
from readside.core.leases import Unit
from readside.core.position import Position
from readside.core.record import Captured, Record, Watermark
from readside.core.settling import Bookmark, Settling


class Wish(NamedTuple):
    """A unit that wants its partition again from after a position."""

    unit: Unit
    after: Position


class Shipping:
    """The relay's memory between the source and the broker, without I/O.

    Args:
        partitions: number of partitions.
        origin: where the history of this epoch begins.
        bookmark: where this relay begins; the chain's heads are those of this place.
        tails: the last record that the broker holds of each partition; up to there nothing is sent again.
    """

    def __init__(
        self, partitions: int, origin: Position, bookmark: Bookmark, tails: Mapping[int, Position]
    ) -> None:
        self._chain = Chain(partitions, origin, dict(enumerate(bookmark.heads)))
        self._origin = origin
        self._start = bookmark
        self._tails = dict(tails)
        self._settled = bookmark.lsn
        #: Commit of the newest event that was stamped.
        self._taken = -1
        self._recorded_at: dict[int, int] = {}
        self.lagging = Lagging()
        self.settling = Settling(bookmark)

    @property
    def heads(self) -> Sequence[Head]:
        """The last stamped record of each partition."""
        return self._chain.heads

    @property
    def epoch(self) -> int:
        """The epoch of the history that is shipped."""
        return self._origin.epoch

    @property
    def settled(self) -> int:
        """Everything that committed before this LSN was stamped."""
        return self._settled

    def grant(self, wish: Wish) -> bool:
        """Send a partition again from after a position, if this relay's history reaches back so far.

        Returns:
            False if records after that position are gone from the source.
        """
        partition = wish.unit.partition
        if wish.after < self._start.heads[partition].position:
            return False
        held = self._tails.get(partition)
        if held is not None and held > wish.after:
            self._tails[partition] = wish.after
        return True

    def reachable(self, wish: Wish) -> bool:
        """Whether a relay that starts now could grant a wish."""
        confirmed = self.settling.confirmed.heads[wish.unit.partition]
        return wish.after >= confirmed.position

    def take(self, events: Sequence[Captured]) -> list[Record]:
        """Stamp events; return those to publish."""
        start = self._start.lsn
        if events and events[0].position.lsn < start:
            events = [event for event in events if event.position.lsn >= start]
        if events:
            self._taken = events[-1].position.lsn
        records = self._chain.stamp(events)
        for index in self._last_of_each(records):
            self._recorded_at[records[index].partition] = records[index].recorded_at
        if not self._tails:
            return records
        tails = self._tails
        fresh = [
            record
            for record in records
            if record.position > tails.get(record.partition, self._origin)
        ]
        if len(fresh) == len(records) and records:
            self._tails = {
                number: tail
                for number, tail in tails.items()
                if tail > self._chain.heads[number].position
            }
        return fresh

    def tell(self, records: list[Record], settled: int) -> list[Record]:
        """Let the last record of each partition say how far the source has told, if that is beyond it."""
        for index in self._last_of_each(records):
            if settled > records[index].position.lsn:
                records[index] = records[index]._replace(settled=settled)
        return records

    def _last_of_each(self, records: Sequence[Record]) -> list[int]:
        """Where the last record of each partition is."""
        found: dict[int, int] = {}
        for index in range(len(records) - 1, -1, -1):
            found.setdefault(records[index].partition, index)
            if len(found) == len(self.heads):
                break
        return [*found.values()]

    def shipped(self, settled: int) -> None:
        """Note that everything taken is with the broker, and how far the source has told."""
        self._settled = max(self._settled, settled)

    def sample(self) -> Mapping[int, Sequence[Sample]]:
        """Note when the heads were recorded, so that lag can be told in seconds; return all notes."""
        for partition, recorded_at in self._recorded_at.items():
            self.lagging.add(partition, Sample(self._chain.heads[partition].nth, recorded_at))
        self._recorded_at.clear()
        return self.lagging.samples

    def mark(self) -> None:
        """Set a bookmark here, unless a transaction is half taken: its records are in the heads already."""
        if self._taken < self._settled:
            self.settling.mark(self._settled, self._chain.heads)

    def watermark(self, partition: int) -> Watermark:
        """The word on a partition as of now."""
        return self._chain.watermark(partition, Position(self._origin.epoch, self._settled, 0))
