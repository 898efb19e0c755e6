from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.partition import partition_of

#: Never change these: records in brokers, and documents' positions, are filed by them.
KNOWN = {
    "1": (0x83DCEFB7, 7),
    "2": (0x1AD5BE0D, 5),
    "42": (0x3224B088, 0),
    "123456789": (0xCBF43926, 6),  # the check value in every description of CRC-32
    "user-1": (0x7E264614, 4),
    "Zoë": (0x67AC422A, 2),
    "日本": (0xC7B7CDCC, 4),
}


@pytest.mark.parametrize("key", KNOWN)
def test_known_keys_stay_where_they_are(key):
    checksum, of_eight = KNOWN[key]
    assert partition_of(key, 2**32) == checksum
    assert partition_of(key, 8) == of_eight
    assert partition_of(key, 1) == 0


@given(st.text(), st.integers(1, 1024))
def test_a_partition_is_in_range_and_the_checksum_of_utf_8(key, partitions):
    found = partition_of(key, partitions)
    assert 0 <= found < partitions
    assert found == crc32(key.encode("utf-8")) % partitions


def test_consecutive_numbers_are_spread_evenly():
    counts = [0] * 8
    for number in range(80_000):
        counts[partition_of(str(number), 8)] += 1
    assert min(counts) > 9_000
    assert max(counts) < 11_000
