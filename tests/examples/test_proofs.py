"""The proofs in figures do what they say, in short; and a stale read would be seen."""

from __future__ import annotations

from typing import Any

import pytest
from proofs.latency import latency
from proofs.polling import polling
from proofs.reads import WRITERS, Customer, reads
from proofs.ways import opened, ways

from readside.adapters.embedded import Addresses

(WAY,) = [way for way in ways() if str(way) == "polling-direct-tables-async"]


@pytest.fixture
async def place(servers: Addresses) -> Any:
    async with opened(WAY, servers) as place:
        yield place


async def test_whoever_writes_reads_it(place: Any) -> None:
    row, wrong = await reads(place, 1.0)
    assert wrong == []
    assert row["stale"] == row["late"] == 0
    assert row["reads"] >= row["writes"] >= WRITERS


async def test_a_stale_read_is_seen(place: Any) -> None:
    """Nothing brings events to the read models, and nobody waits."""
    customer = Customer(place, 1)
    customer.waits = False
    await customer.step()
    assert customer.reads == 2
    assert len(customer.stale) == 1  # there is no count of orders yet, and none is right


async def test_commits_become_readable(place: Any) -> None:
    row, wrong = await latency(place, 1.0)
    assert wrong == []
    assert 0 < row["readable_ms"]["p50"] <= row["readable_ms"]["p99"]


async def test_retained_rows_and_long_transactions() -> None:
    found, wrong = await polling(2000, 1.0, 50)
    assert wrong == []
    assert [look["rows"] for look in found["looks"]] == [0, 2300]
    assert found["held"]["seen_meanwhile"] == 50
