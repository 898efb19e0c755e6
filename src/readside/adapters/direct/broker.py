"""The broker that is none: records go from the relay to the projectors of the same process."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import ClassVar

from readside.core.batching import Limits
from readside.core.position import Position
from readside.core.record import Record, Watermark
from readside.ports.broker import BrokerTraits, Delivery, Subscription
from readside.ports.traits import Promise

#: Records that wait for one subscriber before the relay has to wait. Few: what lies long leaves the
#: processor's cache, and with 4,000 the same work took a third more CPU.
_FULL = 500
#: Bytes that wait for one subscriber before the relay has to wait.
_FULL_BYTES = 1024 * 1024

_PARTITION = attrgetter("partition")
_PAYLOAD = attrgetter("payload")


class DirectBroker:
    """Hands records over in memory, and remembers nothing: PostgreSQL is the log.

    A subscriber sees what is published while it is there; what came before it finds missing by
    the chain, and the relay sends it again from PostgreSQL.
    """

    traits: ClassVar[BrokerTraits] = BrokerTraits(
        remembers=Promise.NEVER, serves_others=Promise.NEVER
    )

    def __init__(self, url: str = "direct:") -> None:
        self.url = url
        self._readers: dict[int, list[_Reader]] = {}

    async def open(self, app: str, partitions: int) -> None:
        """See ports.broker."""
        del app
        self._readers = {number: self._readers.get(number, []) for number in range(partitions)}

    async def check(self, largest: int) -> None:
        """See ports.broker; memory takes them all."""

    async def tails(self) -> Mapping[int, Position]:
        """See ports.broker."""
        return {}

    async def publish(self, records: Sequence[Record]) -> None:
        """See ports.broker; waits where a reader has enough to do."""
        by_partition: defaultdict[int, list[Record]] = defaultdict(list)
        for partition, record in zip(map(_PARTITION, records), records, strict=True):
            by_partition[partition].append(record)
        for partition, some in by_partition.items():
            for reader in list(self._readers.get(partition, ())):
                await reader.put(some)

    async def announce(self, watermarks: Sequence[Watermark]) -> None:
        """See ports.broker."""
        for watermark in watermarks:
            for reader in self._readers.get(watermark.partition, ()):
                reader.tell(watermark)

    async def subscribe(self, partition: int, offset: str) -> Subscription:
        """See ports.broker; there is no log, so no offset to begin at."""
        del offset
        return _Reader(self._readers.setdefault(partition, []))

    async def close(self) -> None:
        """See ports.broker."""


class _Reader:
    """One subscriber of one partition."""

    def __init__(self, readers: list[_Reader]) -> None:
        self._readers = readers
        self._records: deque[Record] = deque()
        self._size = 0
        self._watermark: Watermark | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        readers.append(self)

    async def put(self, records: Sequence[Record]) -> None:
        await self._room.wait()
        self._records.extend(records)
        self._size += sum(map(len, map(_PAYLOAD, records)))
        self._arrived.set()
        self._note_room()

    def tell(self, watermark: Watermark) -> None:
        self._watermark = watermark
        self._arrived.set()

    async def read(self, limits: Limits, patience: float) -> Delivery:
        """See ports.broker."""
        if not self._records and self._watermark is None and patience > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        records = self._take(limits)
        self._note_room()
        # A watermark speaks of everything before it, so it waits until that was read.
        watermark = None
        if not self._records:
            watermark, self._watermark = self._watermark, None
        return Delivery(records, watermark)

    def _take(self, limits: Limits) -> list[Record]:
        if len(self._records) <= limits.records and self._size <= limits.size:
            records = list(self._records)  # by far the most frequent: all of them
            self._records.clear()
            self._size = 0
            return records
        records = []
        size = 0
        while self._records and len(records) < limits.records and size < limits.size:
            record = self._records.popleft()
            size += len(record.payload)
            records.append(record)
        self._size -= size
        return records

    def _note_room(self) -> None:
        if len(self._records) < _FULL and self._size < _FULL_BYTES:
            self._room.set()
        else:
            self._room.clear()

    async def close(self) -> None:
        """See ports.broker."""
        if self in self._readers:
            self._readers.remove(self)
        self._records.clear()
        self._room.set()
