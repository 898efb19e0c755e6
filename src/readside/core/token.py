"""Tokens: what a writer gives to a reader so that the reader sees the write."""

from __future__ import annotations

import re
from typing import NamedTuple

from readside.core.errors import DecodeError
from readside.core.position import Position

_FORM = "r1"
_TEXT = re.compile(r"r1-([0-9a-f]{1,8})-([0-9a-f]{1,16})-((?:[0-9]{1,5}(?:\.[0-9]{1,5}){0,1023})?)")


class Token(NamedTuple):
    """A place in the history and the partitions that a transaction touched.

    Its text is short and safe for headers, cookies and URLs.
    """

    position: Position
    partitions: tuple[int, ...]

    def __str__(self) -> str:
        partitions = ".".join(str(number) for number in self.partitions)
        return f"{_FORM}-{self.position.epoch:x}-{self.position.lsn:x}-{partitions}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token's text.

        Raises:
            DecodeError: it is none.
        """
        matched = _TEXT.fullmatch(text)
        if matched is None:
            raise DecodeError(f"{text[:80]!r} is no token of readside.")
        epoch, lsn, partitions = matched.groups()
        numbers = tuple(int(part) for part in partitions.split(".") if part)
        return cls(Position(int(epoch, 16), int(lsn, 16), 0), numbers)
