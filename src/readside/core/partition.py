"""Which partition a key belongs to."""

from __future__ import annotations

from zlib import crc32


def partition_of(key: str, partitions: int) -> int:
    """Map a key to a partition by CRC-32 of its UTF-8 bytes.

    Stable across processes, machines and releases, and in every language's standard library,
    so that any producer can compute it. Changing the number of partitions moves keys:
    readside refuses to start with another number than the one that the capture was created with.
    """
    return crc32(key.encode()) % partitions
