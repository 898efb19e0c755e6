"""Where documents live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar, NamedTuple, Protocol

from readside.core.folding import Batch, Stored
from readside.core.record import Checkpoint
from readside.ports.traits import Promise


class StoreTraits(NamedTuple):
    """What a store promises."""

    #: Documents and checkpoint of one batch become visible together or not at all.
    applies_atomically: Promise
    #: What was applied survives a crash of the store.
    durable: Promise


class Outcome(Enum):
    """What became of a batch."""

    APPLIED = "applied"
    #: A document has changed since it was loaded: load and fold again.
    CONFLICT = "conflict"
    #: The checkpoint is another one: a newer owner, an older state, or an empty store.
    FENCED = "fenced"


class Reading(NamedTuple):
    """Documents, as a reader sees them."""

    documents: list[bytes | None]
    #: Why the projection must not be trusted; empty if it may.
    halted: str


class Store(Protocol):
    """Documents and checkpoints, guarded by compare-and-set.

    It may be away, may be slow, may come back older or empty; it never applies half a batch.
    """

    traits: ClassVar[StoreTraits]

    async def open(self, app: str) -> None:
        """Connect and check.

        Raises:
            UnavailableError, RefusedError: it is away, or would lose documents.
        """

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """The checkpoints of these partitions, where there are any."""

    async def load(self, projection: str, keys: Sequence[str]) -> list[Stored]:
        """The documents with their positions, in the order of the keys."""

    async def apply(self, batch: Batch) -> Outcome:
        """Write documents and checkpoint if checkpoint and documents are still as expected."""

    async def read(self, projection: str, keys: Sequence[str]) -> Reading:
        """The documents for a reader, in the order of the keys."""

    async def halt(self, projection: str, reason: str) -> None:
        """Tell readers that the projection is wrong; an empty reason takes it back."""

    async def close(self) -> None:
        """Disconnect."""
