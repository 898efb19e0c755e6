"""How much to take at once: at once what is there when idle, a large batch under load."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds of one batch."""

    records: int = 1000
    #: Payload bytes, so that memory stays bounded whatever the events weigh.
    size: int = 8 * 1024 * 1024
