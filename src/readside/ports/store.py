"""Where documents live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from readside.core.folding import Batch, Stored
from readside.core.projection import Projection
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
    """Documents, and what is to know about them, all of one moment."""

    documents: list[bytes | None]
    #: Why the projection must not be trusted; empty if it may.
    halted: str
    #: The checkpoints of the partitions that were asked for, where there are any.
    checkpoints: Mapping[int, Checkpoint]
    #: Keys of documents that are parked behind an event of these partitions.
    parked: frozenset[str]


class Store(Protocol):
    """Documents and checkpoints, guarded by compare-and-set.

    It may be away, may be slow, may come back older or empty; it never applies half a batch.
    """

    traits: ClassVar[StoreTraits]

    async def open(self, app: str, projections: Sequence[str] = ()) -> None:
        """Connect and check.

        Args:
            app: whose documents.
            projections: those that shall be written; nobody else may write under their names.

        Raises:
            UnavailableError, RefusedError: it is away, or would lose documents.
        """

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """The checkpoints of these partitions, where there are any."""

    async def load(
        self, projection: str, keys: Sequence[str], *, documents: bool = True
    ) -> list[Stored]:
        """The documents with their positions, in the order of the keys.

        Args:
            projection: whose.
            keys: which.
            documents: False if only the positions are wanted; the documents may be None then.
        """

    async def apply(self, batch: Batch) -> Outcome:
        """Write documents and checkpoint if checkpoint and documents are still as expected.

        Raises:
            UnwritableError: documents which this store can never hold, each with its reason;
                nothing was written.
        """

    async def read(
        self,
        projection: str,
        keys: Sequence[str],
        partitions: Sequence[int] = (),
        *,
        documents: bool = True,
    ) -> Reading:
        """The documents for a reader, in the order of the keys, and how far these partitions are.

        Args:
            projection: whose.
            keys: which.
            partitions: whose checkpoints and parkings.
            documents: False if only these are wanted; the documents may be None then.
        """

    async def halt(self, projection: str, partition: int, reason: str) -> None:
        """Tell readers that a partition of the projection is wrong; an empty reason takes it back."""

    async def parked(self, projection: str, partition: int) -> Mapping[str, str]:
        """What `Batch.parked` has said of documents behind this partition: key -> parking."""

    async def unpark(self, projection: str, partition: int, key: str, parking: str) -> None:
        """Take back what `Batch.parked` said of a document, if it still is the same parking."""

    async def reset(self, projection: str, checkpoints: Mapping[int, Checkpoint] | None) -> int:
        """Forget everything about a projection, and begin at these checkpoints if there are any.

        Returns the number of documents that were removed. Not atomic: after a failure it has to be
        repeated, and readers are told so until then.

        Raises:
            FencedError: one of the checkpoints there has no lower token than the one given here, or
                somebody has moved one meanwhile: whoever resets was asleep, and is not the owner any more.
        """

    async def close(self) -> None:
        """Disconnect."""


@runtime_checkable
class Tables(Protocol):
    """A store which keeps documents in tables, and so has to know the views."""

    def declare(self, projections: Mapping[str, Projection[Any]]) -> None:
        """Tell the projections of the app; the mapping may grow."""

    async def prepare(self, app: str) -> list[str]:
        """Make the tables, or change them to what the views are now; return what was done.

        Raises:
            UnavailableError, RefusedError: the server is away, or a table cannot be what it shall.
        """
