from __future__ import annotations

from readside.core.batching import Limits


def test_memory_is_bounded_by_records_and_by_bytes():
    limits = Limits()
    assert limits.records > 1
    # A single event may be as large as max_payload; a batch must hold some of those.
    assert limits.size > 1_000_000
