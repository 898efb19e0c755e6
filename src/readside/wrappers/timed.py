"""Measures where the time goes between commit and document; same ports in, same ports out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from readside.core.batching import Limits
from readside.core.folding import Batch, Stored
from readside.core.position import Position
from readside.core.record import Checkpoint, Record, Watermark
from readside.ports.broker import Broker, BrokerTraits, Delivery, Subscription
from readside.ports.store import Outcome, Reading, Store, StoreTraits

STAGES = ("commit to relay", "relay to broker", "broker to projector", "projector to store")


class Stopwatch:
    """Collects seconds for each stage of each record that passes, the latest 200,000.

    The first stage compares PostgreSQL's clock with this machine's: right on one machine.
    """

    def __init__(self) -> None:
        self.samples: dict[str, deque[float]] = {stage: deque(maxlen=200_000) for stage in STAGES}
        self._published: dict[Position, float] = {}
        self._received: dict[tuple[int, Position], float] = {}

    def clear(self) -> None:
        """Forget the samples so far."""
        for samples in self.samples.values():
            samples.clear()

    def broker(self, inner: Broker) -> Broker:
        """Wrap a broker."""
        return TimedBroker(inner, self)

    def store(self, inner: Store) -> Store:
        """Wrap a store."""
        return TimedStore(inner, self)

    def published(self, records: Sequence[Record], began: float, ended: float) -> None:
        """Note a batch that the broker has."""
        for record in records:
            self.samples[STAGES[0]].append(began - record.recorded_at / 1e6)
            self.samples[STAGES[1]].append(ended - began)
            self._published[record.position] = ended

    def received(self, records: Sequence[Record]) -> None:
        """Note a batch that a projector has taken."""
        now = time.time()
        for record in records:
            published = self._published.pop(record.position, None)
            if published is not None:
                self.samples[STAGES[2]].append(now - published)
        if records:
            self._received[records[-1].partition, records[-1].position] = now

    def applied(self, batch: Batch) -> None:
        """Note a batch that the store has."""
        if batch.checkpoint is None:
            return
        received = self._received.pop((batch.partition, batch.checkpoint.position), None)
        if received is not None:
            self.samples[STAGES[3]].append(time.time() - received)


class TimedBroker:
    """A broker, timed."""

    traits: ClassVar[BrokerTraits]

    def __init__(self, inner: Broker, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch
        self.traits = inner.traits  # type: ignore[misc]  # the wrapped adapter's own

    async def open(self, app: str, partitions: int) -> None:
        """See ports.broker."""
        await self._inner.open(app, partitions)

    async def check(self, largest: int) -> None:
        """See ports.broker."""
        await self._inner.check(largest)

    async def tails(self) -> Mapping[int, Position]:
        """See ports.broker."""
        return await self._inner.tails()

    async def publish(self, records: Sequence[Record]) -> None:
        """See ports.broker."""
        began = time.time()
        await self._inner.publish(records)
        self._watch.published(records, began, time.time())

    async def announce(self, watermarks: Sequence[Watermark]) -> None:
        """See ports.broker."""
        await self._inner.announce(watermarks)

    async def subscribe(self, partition: int, offset: str) -> Subscription:
        """See ports.broker."""
        return _TimedSubscription(
            await self._inner.subscribe(partition, offset), self._watch.received
        )

    async def close(self) -> None:
        """See ports.broker."""
        await self._inner.close()


class _TimedSubscription:
    def __init__(self, inner: Subscription, note: Callable[[Sequence[Record]], None]) -> None:
        self._inner = inner
        self._note = note

    async def read(self, limits: Limits, patience: float) -> Delivery:
        """See ports.broker."""
        delivery = await self._inner.read(limits, patience)
        self._note(delivery.records)
        return delivery

    async def close(self) -> None:
        """See ports.broker."""
        await self._inner.close()


class TimedStore:
    """A store, timed."""

    traits: ClassVar[StoreTraits]

    def __init__(self, inner: Store, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch
        self.traits = inner.traits  # type: ignore[misc]  # the wrapped adapter's own

    async def open(self, app: str, projections: Sequence[str] = ()) -> None:
        """See ports.store."""
        await self._inner.open(app, projections)

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """See ports.store."""
        return await self._inner.checkpoints(projection, partitions)

    async def load(
        self, projection: str, keys: Sequence[str], *, documents: bool = True
    ) -> list[Stored]:
        """See ports.store."""
        return await self._inner.load(projection, keys, documents=documents)

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store."""
        outcome = await self._inner.apply(batch)
        if outcome is Outcome.APPLIED:
            self._watch.applied(batch)
        return outcome

    async def read(
        self,
        projection: str,
        keys: Sequence[str],
        partitions: Sequence[int] = (),
        *,
        documents: bool = True,
    ) -> Reading:
        """See ports.store."""
        return await self._inner.read(projection, keys, partitions, documents=documents)

    async def halt(self, projection: str, partition: int, reason: str) -> None:
        """See ports.store."""
        await self._inner.halt(projection, partition, reason)

    async def parked(self, projection: str, partition: int) -> Mapping[str, str]:
        """See ports.store."""
        return await self._inner.parked(projection, partition)

    async def unpark(self, projection: str, partition: int, key: str, parking: str) -> None:
        """See ports.store."""
        await self._inner.unpark(projection, partition, key, parking)

    async def reset(self, projection: str, checkpoints: Mapping[int, Checkpoint] | None) -> int:
        """See ports.store."""
        return await self._inner.reset(projection, checkpoints)

    async def close(self) -> None:
        """See ports.store."""
        await self._inner.close()
