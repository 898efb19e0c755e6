"""Where a record stands in the history of the write store."""

from __future__ import annotations

from binascii import unhexlify
from struct import Struct
from typing import Final, NamedTuple

from readside.core.errors import DecodeError

#: Characters of an encoded position.
WIDTH: Final = 34

_FIELDS: Final = Struct("!IQI")


class Position(NamedTuple):
    """A place in the commit order: total, unique, and the same on every re-send.

    Encoded at a fixed width, so that the order of the texts is the order of the positions;
    stores compare texts and never turn them into numbers (Lua's numbers lose bits above 2**53).
    """

    #: Grows when the history restarts: another installation, a restore, a lost slot. Taken from
    #: the clock once, at the restart, so that it grows even where readside's notes went back in time.
    epoch: int
    #: Byte address of the transaction's commit record in the write-ahead log.
    lsn: int
    #: Counts the records of one transaction from 1; 0 stands before the first of them.
    ordinal: int

    def encode(self) -> str:
        """Return the fixed-width text, e.g. ``6923b10f-00000000018f2a10-00000003``."""
        return f"{self.epoch:08x}-{self.lsn:016x}-{self.ordinal:08x}"

    @classmethod
    def decode(cls, text: str) -> Position:
        """Read what `encode` wrote.

        Raises:
            DecodeError: the text is not an encoded position.
        """
        if len(text) != WIDTH or text[8] != "-" or text[25] != "-" or text != text.lower():
            raise DecodeError(f"{text[:80]!r} is not a position.")
        try:
            # int(text, 16) would also take signs, spaces, underscores and 0x, and is slower.
            return cls(*_FIELDS.unpack(unhexlify(text[:8] + text[9:25] + text[26:])))
        except ValueError as error:
            raise DecodeError(f"{text!r} is not a position.") from error

    def __str__(self) -> str:
        return f"{self.epoch}:{format_lsn(self.lsn)}:{self.ordinal}"


#: Before everything that was ever recorded.
BEGINNING: Final = Position(0, 0, 0)


def settled(epoch: int, lsn: int) -> Position:
    """The position of a consumer that has everything which committed before `lsn`."""
    return Position(epoch, lsn, 0)


def parse_lsn(text: str) -> int:
    """Read PostgreSQL's notation, ``16/B374D848``, as a number of bytes."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(lsn: int) -> str:
    """Write a number of bytes in PostgreSQL's notation."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


#: Ordinals of all but the largest transactions, encoded once: to format a number costs as much as the rest.
_MANY: Final = 1024
_SMALL: Final = tuple(f"{ordinal:08x}" for ordinal in range(_MANY))


class Encoder:
    """Encodes many positions; where they come from few transactions, in a third of the time.

    Args:
        prefix: what each text is to begin with.
    """

    __slots__ = ("_epoch", "_lsn", "_prefix", "_stem")

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._epoch = self._lsn = -1
        self._stem = ""

    def encode(self, position: Position) -> str:
        """The same text as `Position.encode`, behind the prefix."""
        epoch, lsn, ordinal = position
        if lsn != self._lsn or epoch != self._epoch:
            self._epoch, self._lsn = epoch, lsn
            self._stem = self._prefix + position.encode()[:-8]
        return self._stem + (_SMALL[ordinal] if ordinal < _MANY else f"{ordinal:08x}")
