"""What the laws of a broker stand on: records, a log for each test, and the hooks of those which run them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from readside.core.batching import Limits
from readside.core.position import BEGINNING, Position
from readside.core.record import Record
from readside.ports.broker import Broker, BrokerTraits, Subscription
from readside.ports.traits import Promise

#: Seconds after which something that has to come counts as lost; no test waits so long in vain.
PATIENCE = 20.0
#: Seconds to wait for what must not come.
BRIEFLY = 0.2
LIMITS = Limits()


def record(nth: int, partition: int = 0, **fields: Any) -> Record:
    """Record number `nth` of a partition."""
    at = Position(7, nth * 16, 1)
    before = Position(7, (nth - 1) * 16, 1) if nth > 1 else BEGINNING
    made = Record(
        partition,
        at,
        before,
        nth,
        f"id-{nth}",
        "thing.done",
        f"key-{nth % 5}",
        1,
        f'{{"nth":{nth}}}'.encode(),
        1_700_000_000_000_000 + nth,
    )
    return made._replace(**fields)


def records(first: int, last: int, partition: int = 0) -> list[Record]:
    """Records number `first` to `last` of a partition."""
    return [record(nth, partition) for nth in range(first, last + 1)]


def bare(some: Sequence[Record]) -> list[Record]:
    """The records without the offsets that the broker's log gave them."""
    return [one._replace(offset="") for one in some]


async def take(subscription: Subscription, count: int, limits: Limits = LIMITS) -> list[Record]:
    """Read until there are `count` records.

    Raises:
        TimeoutError: they did not come.
    """
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += (await subscription.read(limits, 0.5)).records
    return found


class BrokerGround(ABC):
    """Each test has an app, and with it a log, of its own."""

    traits: ClassVar[BrokerTraits]
    #: Records that a reader may have to be sent at once.
    many: ClassVar[int] = 3000
    #: Whether each record has an offset of its own. Where records travel together, whoever goes on
    #: in the middle gets again those that came before it in the same message.
    exact: ClassVar[bool] = True
    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make(self) -> Broker:
        """A broker that is not open yet; each call gives another connection to the same server."""

    async def peek(self, app: str, partition: int) -> list[bytes]:
        """The payloads of a partition, read with the vendor's own client."""
        raise NotImplementedError

    async def wipe(self, app: str) -> None:
        """Delete the app's log behind the adapter's back."""
        raise NotImplementedError

    async def truncate(self, app: str, partition: int, keep: int) -> None:
        """Delete all records of a partition but the newest `keep`, behind the adapter's back."""
        raise NotImplementedError

    @pytest.fixture
    def app(self) -> str:
        """An app that no other test has."""
        return f"t{uuid4().hex[:10]}"

    @pytest_asyncio.fixture
    async def broker(self, app: str) -> AsyncIterator[Broker]:
        broker = await self.make()
        await broker.open(app, 4)
        yield broker
        await broker.close()

    def _needs_memory(self) -> None:
        if self.traits.remembers is Promise.NEVER:
            pytest.skip("this broker remembers nothing")
