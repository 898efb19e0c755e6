"""What carries records from the relay to the projectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from readside.core.batching import Limits
from readside.core.position import Position
from readside.core.record import Record, Watermark
from readside.ports.traits import Promise


class BrokerTraits(NamedTuple):
    """What a broker promises."""

    #: Records outlive the processes that published them.
    remembers: Promise
    #: Other programs can subscribe to the events as plain JSON.
    serves_others: Promise


class Delivery(NamedTuple):
    """What a subscription had at hand: records in order, and the newest watermark, if one came."""

    records: list[Record]
    watermark: Watermark | None


class Subscription(Protocol):
    """One reader of one partition."""

    async def read(self, limits: Limits, patience: float) -> Delivery:
        """Wait at most `patience` seconds for something, and return what is at hand within limits."""

    async def close(self) -> None:
        """Stop reading."""


class Broker(Protocol):
    """A log for each partition. It carries records at least once and in order of publication.

    It may repeat; it may forget what it has acknowledged; it may come back older or empty.
    Consumers find that out by the chain of predecessors, so no adapter has to be clever about it.
    """

    traits: ClassVar[BrokerTraits]

    async def open(self, app: str, partitions: int) -> None:
        """Connect, and create or check what the app needs.

        Raises:
            UnavailableError: it cannot be reached.
            RefusedError: it refuses, or exists in a shape that would lose records.
        """

    async def check(self, largest: int) -> None:
        """Make sure that payloads of `largest` bytes can pass.

        Raises:
            RefusedError: they cannot.
        """

    async def tails(self) -> Mapping[int, Position]:
        """The position of the last record of each partition, where the log has one."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Append, in order, and return when the broker has proved that it holds all of them.

        Raises:
            UnavailableError: some may be stored and some not; publish all of them again.
        """

    async def announce(self, watermarks: Sequence[Watermark]) -> None:
        """Tell subscribers how far the history is known. May be lost, may overtake records."""

    async def subscribe(self, partition: int, offset: str) -> Subscription:
        """Read a partition from after `offset`, or from the first record the log still has.

        Also from the first where the log is not the one that `offset` was taken in.
        """

    async def close(self) -> None:
        """Disconnect."""
