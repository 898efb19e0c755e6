"""What the laws of a store stand on: a store for each test, and the hooks of those which run them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from readside.core.folding import Batch, Write
from readside.core.position import Position
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Store, StoreTraits
from readside.ports.traits import Promise


def checkpoint(nth: int, *, token: int = 1, offset: str = "") -> Checkpoint:
    """The checkpoint after record number `nth`."""
    return Checkpoint(Position(1, nth, 1), nth, offset, token)


def positions(nth: int) -> str:
    """The positions of a document that contains record number `nth` of partition 0."""
    return f"0:{Position(1, nth, 1).encode()}"


class StoreGround(ABC):
    """Each test has a projection of its own."""

    traits: ClassVar[StoreTraits]
    #: Documents that are written at once.
    many: ClassVar[int] = 5000
    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make(self) -> Store:
        """An open store; each call gives another connection to the same documents."""

    @abstractmethod
    async def peek(self, name: str) -> bytes | None:
        """The document `<projection>:<key>`, read with the vendor's own client."""

    def doc(self, text: str) -> bytes:
        """A document that says this; where a store cannot keep any JSON, as JSON of what it can keep."""
        return text.encode()

    def blob(self) -> bytes:
        """A big document with everything in it that a document may hold."""
        return b'"' + bytes(range(256)).replace(b'"', b"") * 8192 + b'"'

    def impossible(self) -> bytes | None:
        """A document which this store can never hold; None where there is none."""
        return None

    async def interrupt(self, after: int) -> None:  # noqa: ARG002 - a hook that may stay empty
        """Let the next batch break off when `after` of its documents are written."""
        pytest.skip("a batch of this store cannot be broken off here")

    async def lose(self) -> None:
        """Let the server die and come back with what it has on disk."""
        pytest.skip("this store's server cannot be killed here")

    def _needs_atomicity(self) -> None:
        if self.traits.applies_atomically is Promise.NEVER:
            pytest.skip("this store applies document by document")

    @pytest.fixture
    def projection(self) -> str:
        """A projection that no other test writes to."""
        return f"p{uuid4().hex[:12]}"

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = await self.make()
        yield store
        await store.close()

    async def _put(self, store: Store, projection: str, *writes: Write, nth: int = 1) -> Outcome:
        found = (await store.checkpoints(projection, [0])).get(0)
        return await store.apply(Batch(projection, 0, found, checkpoint(nth), writes))
