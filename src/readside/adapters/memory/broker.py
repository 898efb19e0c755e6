"""A partitioned log in memory: a server which can forget, and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from readside.adapters.memory.database import loop_time
from readside.core.batching import Limits
from readside.core.errors import RefusedError, UnavailableError
from readside.core.position import Position
from readside.core.record import Record, Watermark
from readside.ports.broker import BrokerTraits, Delivery, Subscription
from readside.ports.traits import Promise


class Backup(NamedTuple):
    """An older state of a log."""

    identity: str
    first: dict[int, int]
    records: dict[int, list[Record]]


class Log:
    """The server. Records have sequences from 1 in each partition, and a lost one's is used again.

    Tests make it forget: everything, the oldest, the newest, or all since a backup.
    """

    def __init__(self) -> None:
        self.running = True
        #: Changes when the log is made anew; empty while it does not exist.
        self.identity = ""
        self.largest = 8 * 1024 * 1024
        self.records: dict[int, list[Record]] = {}
        self._first: dict[int, int] = {}
        self._made = 0
        self._interrupted: int | None = None
        self._readers: list[_Reader] = []

    def check(self) -> None:
        """Raise UnavailableError where the server is away."""
        if not self.running:
            raise UnavailableError("The log in memory is stopped.", mend="start it")

    def make(self) -> None:
        """Create the log where it does not exist."""
        if not self.identity:
            self._made += 1
            self.identity = f"log-{self._made}"

    def last(self, partition: int) -> int:
        """The sequence of the last record, or of the one before the first."""
        return self._first.get(partition, 1) - 1 + len(self.records.get(partition, ()))

    def append(self, records: Sequence[Record]) -> None:
        """Append until all are there or the connection breaks."""
        some = records if self._interrupted is None else records[: self._interrupted]
        self._store(some)
        if self._interrupted is not None:
            self._interrupted -= len(some)
            if len(some) < len(records):
                self._interrupted = None
                raise UnavailableError("The connection to the log in memory broke.")

    def _store(self, records: Sequence[Record]) -> None:
        for record in records:
            self.records.setdefault(record.partition, []).append(record)
        for reader in self._readers:
            reader.wake()

    def read(self, partition: int, after: int, limits: Limits) -> list[Record]:
        """Records from after a sequence, each with its offset."""
        first = self._first.get(partition, 1)
        begin = max(0, after + 1 - first)
        found: list[Record] = []
        size = 0
        some = self.records.get(partition, [])[begin : begin + limits.records]
        for sequence, record in enumerate(some, first + begin):
            if size >= limits.size:
                break
            found.append(record._replace(offset=f"{self.identity}:{sequence}"))
            size += len(record.payload)
        return found

    def attach(self, reader: _Reader) -> None:
        """Begin to wake a reader."""
        self._readers.append(reader)

    def detach(self, reader: _Reader) -> None:
        """Stop waking a reader."""
        if reader in self._readers:
            self._readers.remove(reader)

    def tell(self, watermark: Watermark) -> None:
        """Hand a watermark to whoever reads now; nobody else will ever see it."""
        for reader in self._readers:
            reader.tell(watermark)

    def stop(self) -> None:
        """End every connection and refuse new ones."""
        self.running = False
        self._cut()

    def start(self) -> None:
        """Serve again."""
        self.running = True

    def _cut(self) -> None:
        for reader in self._readers:
            reader.cut()
        self._readers.clear()

    def interrupt(self, after: int) -> None:
        """Store `after` more records, then break the connection that sent them, once."""
        self._interrupted = after

    def wipe(self) -> None:
        """Delete the log; the next one that opens it makes another."""
        self._cut()
        self.identity = ""
        self.records, self._first = {}, {}

    def repeat(self, partition: int, first: int, count: int) -> None:
        """Append `count` records again, beginning with number `first` of those that are there."""
        self._store(self.records.get(partition, [])[first : first + count])

    def truncate(self, partition: int, keep: int = 0) -> None:
        """Forget the oldest records; who reads is not told."""
        records = self.records.get(partition, [])
        gone = max(0, len(records) - keep)
        self._first[partition] = self._first.get(partition, 1) + gone
        self.records[partition] = records[gone:]

    def lose_tail(self, partition: int, count: int) -> None:
        """Crash, and come back without the newest records, though they were acknowledged."""
        self._cut()
        records = self.records.get(partition, [])
        self.records[partition] = records[: max(0, len(records) - count)]

    def backup(self) -> Backup:
        """The state as of now."""
        copied = {partition: list(records) for partition, records in self.records.items()}
        return Backup(self.identity, dict(self._first), copied)

    def roll_back(self, backup: Backup) -> None:
        """Come back as it was."""
        self._cut()
        self.identity, self._first = backup.identity, dict(backup.first)
        self.records = {partition: list(some) for partition, some in backup.records.items()}


class MemoryBroker:
    """A connection to a log in memory."""

    traits: ClassVar[BrokerTraits] = BrokerTraits(
        # As long as the process lives, and unless a test makes it forget.
        remembers=Promise.CONFIGURED,
        serves_others=Promise.NEVER,
    )

    def __init__(self, log: Log) -> None:
        self._log = log

    async def _reach(self) -> Log:
        await asyncio.sleep(0)
        self._log.check()
        return self._log

    async def open(self, app: str, partitions: int) -> None:
        """See ports.broker; the log belongs to whoever shares it."""
        del app, partitions
        (await self._reach()).make()

    async def check(self, largest: int) -> None:
        """See ports.broker."""
        log = await self._reach()
        if largest > log.largest:
            raise RefusedError(f"The log in memory takes {log.largest} bytes, not {largest}.")

    async def tails(self) -> Mapping[int, Position]:
        """See ports.broker."""
        log = await self._reach()
        return {
            partition: records[-1].position for partition, records in log.records.items() if records
        }

    async def publish(self, records: Sequence[Record]) -> None:
        """See ports.broker."""
        log = await self._reach()
        if not log.identity:
            raise UnavailableError("The log in memory does not exist.", mend="open it")
        log.append(records)

    async def announce(self, watermarks: Sequence[Watermark]) -> None:
        """See ports.broker."""
        log = await self._reach()
        for watermark in watermarks:
            log.tell(watermark)

    async def subscribe(self, partition: int, offset: str) -> Subscription:
        """See ports.broker."""
        log = await self._reach()
        log.make()
        identity, _, sequence = offset.rpartition(":")
        after = int(sequence) if identity == log.identity else 0
        if after > log.last(partition):
            after = 0  # the log came back older than the offset
        return _Reader(log, partition, after)

    async def close(self) -> None:
        """See ports.broker."""


class _Reader:
    """One subscriber of one partition."""

    def __init__(self, log: Log, partition: int, after: int) -> None:
        self._log = log
        self._partition = partition
        self._after = after
        self._watermark: Watermark | None = None
        self._arrived = asyncio.Event()
        self._broken = False
        log.attach(self)

    def wake(self) -> None:
        self._arrived.set()

    def cut(self) -> None:
        self._broken = True
        self._arrived.set()

    def tell(self, watermark: Watermark) -> None:
        if watermark.partition == self._partition:
            self._watermark = watermark
            self._arrived.set()

    async def read(self, limits: Limits, patience: float) -> Delivery:
        """See ports.broker."""
        await asyncio.sleep(0)
        deadline = loop_time() + patience
        while True:
            self._arrived.clear()
            if self._broken:
                raise UnavailableError(
                    "The subscription in memory has ended.", mend="subscribe again"
                )
            records = self._log.read(self._partition, self._after, limits)
            if records:
                self._after = int(records[-1].offset.rpartition(":")[2])
            if records or self._watermark is not None or not await self._wait(deadline):
                watermark, self._watermark = self._watermark, None
                return Delivery(records, watermark)

    async def _wait(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """See ports.broker."""
        self._log.detach(self)
