"""How much to take at once: at once what is there when idle, a large batch under load."""

from __future__ import annotations

from typing import NamedTuple

#: Readers in one process which may all take as much as the limits say.
_READERS = 8
#: Of that many records and bytes a batch is worth its round trip, however many readers there are.
_FEW = 200
_LIGHT = 256 * 1024


class Limits(NamedTuple):
    """Bounds of one batch."""

    records: int = 1000
    #: Payload bytes, so that memory stays bounded whatever the events weigh.
    size: int = 2 * 1024 * 1024

    def shared(self, readers: int) -> Limits:
        """The limits of each of several readers in a process, so that many need about as much memory as a few."""
        if readers <= _READERS:
            return self
        return Limits(
            min(self.records, max(_FEW, self.records * _READERS // readers)),
            min(self.size, max(_LIGHT, self.size * _READERS // readers)),
        )
