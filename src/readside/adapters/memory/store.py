"""Documents in memory: a server which can be wiped and taken back, and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from readside.core.errors import FencedError, RefusedError, UnavailableError
from readside.core.folding import Batch, Stored, Write, precedes
from readside.core.record import Checkpoint
from readside.ports.store import Outcome, Reading, StoreTraits
from readside.ports.traits import Promise


@dataclass
class Shelves:
    """Everything that goes back in time together."""

    #: By name, `<projection>:<key>`.
    documents: dict[str, bytes] = field(default_factory=dict)
    #: By app, projection and key.
    positions: dict[tuple[str, str, str], str] = field(default_factory=dict)
    #: By app, projection and partition.
    checkpoints: dict[tuple[str, str, int], Checkpoint] = field(default_factory=dict)
    #: By app, projection and partition.
    halted: dict[tuple[str, str, int], str] = field(default_factory=dict)
    #: By app, projection, partition and key.
    parked: dict[tuple[str, str, int, str], str] = field(default_factory=dict)
    #: By projection: the app whose documents they are.
    owners: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Shelves:
        """A copy that shares only what never changes."""
        return Shelves(
            dict(self.documents),
            dict(self.positions),
            dict(self.checkpoints),
            dict(self.halted),
            dict(self.parked),
            dict(self.owners),
        )


class Library:
    """The server."""

    def __init__(self) -> None:
        self.running = True
        self.shelves = Shelves()
        self._interrupted: int | None = None

    def check(self) -> None:
        """Raise UnavailableError where the server is away."""
        if not self.running:
            raise UnavailableError("The store in memory is stopped.", mend="start it")

    def interrupt(self, after: int) -> None:
        """Let a piecemeal write of documents break off after `after` more of them, once."""
        self._interrupted = after

    def write(self) -> None:
        """Count one document that is written piecemeal."""
        self.check()
        if self._interrupted == 0:
            self._interrupted = None
            raise UnavailableError("The connection to the store in memory broke.")
        if self._interrupted is not None:
            self._interrupted -= 1

    def stop(self) -> None:
        """Refuse everybody."""
        self.running = False

    def start(self) -> None:
        """Serve again."""
        self.running = True

    def wipe(self) -> None:
        """Forget everything."""
        self.shelves = Shelves()

    def backup(self) -> Shelves:
        """The state as of now."""
        return self.shelves.copy()

    def roll_back(self, backup: Shelves) -> None:
        """Come back as it was."""
        self.shelves = backup.copy()


class MemoryStore:
    """A connection to documents in memory."""

    traits: ClassVar[StoreTraits] = StoreTraits(
        applies_atomically=Promise.KEPT, durable=Promise.NEVER
    )

    def __init__(self, library: Library) -> None:
        self._library = library
        self._app = ""

    async def _reach(self) -> Shelves:
        await asyncio.sleep(0)
        self._library.check()
        return self._library.shelves

    async def open(self, app: str, projections: Sequence[str] = ()) -> None:
        """See ports.store."""
        self._app = app
        shelves = await self._reach()
        for projection in projections:
            owner = shelves.owners.setdefault(projection, app)
            if owner != app:
                raise RefusedError(f"The documents {projection}:… belong to app {owner}.")

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """See ports.store."""
        found = (await self._reach()).checkpoints
        names = ((number, (self._app, projection, number)) for number in partitions)
        return {number: found[name] for number, name in names if name in found}

    async def load(
        self, projection: str, keys: Sequence[str], *, documents: bool = True
    ) -> list[Stored]:
        """See ports.store."""
        shelves = await self._reach()
        return [
            Stored(
                shelves.documents.get(f"{projection}:{key}") if documents else None,
                shelves.positions.get((self._app, projection, key), ""),
            )
            for key in keys
        ]

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store."""
        shelves = await self._reach()
        refused = self._refused(shelves, batch)
        if refused is not None:
            return refused
        for write in batch.writes:
            self._write(shelves, batch.projection, write)
        self._move(shelves, batch)
        return Outcome.APPLIED

    def _refused(self, shelves: Shelves, batch: Batch) -> Outcome | None:
        if not self._expected(shelves, batch):
            return Outcome.FENCED
        for write in batch.writes:
            if self._changed(shelves, batch, write):
                return Outcome.CONFLICT
        return None

    def _expected(self, shelves: Shelves, batch: Batch) -> bool:
        name = (self._app, batch.projection, batch.partition)
        return batch.checkpoint is None or shelves.checkpoints.get(name) == batch.expected

    def _changed(self, shelves: Shelves, batch: Batch, write: Write) -> bool:
        found = shelves.positions.get((self._app, batch.projection, write.key), "")
        if batch.overwrites:
            return not precedes(found, write.positions)
        return found != write.expected

    def _write(self, shelves: Shelves, projection: str, write: Write) -> None:
        shelves.positions[self._app, projection, write.key] = write.positions
        if write.document is None:
            shelves.documents.pop(f"{projection}:{write.key}", None)
        else:
            shelves.documents[f"{projection}:{write.key}"] = write.document

    def _move(self, shelves: Shelves, batch: Batch) -> None:
        for key, parking in batch.parked:
            shelves.parked[self._app, batch.projection, batch.partition, key] = parking
        if batch.checkpoint is not None:
            shelves.checkpoints[self._app, batch.projection, batch.partition] = batch.checkpoint

    async def read(
        self,
        projection: str,
        keys: Sequence[str],
        partitions: Sequence[int] = (),
        *,
        documents: bool = True,
    ) -> Reading:
        """See ports.store."""
        shelves = await self._reach()
        of_this = (self._app, projection)
        halted = [reason for name, reason in shelves.halted.items() if name[:2] == of_this]
        names = ((number, (*of_this, number)) for number in partitions)
        found = shelves.checkpoints
        return Reading(
            [shelves.documents.get(f"{projection}:{key}") if documents else None for key in keys],
            halted[0] if halted else "",
            {number: found[name] for number, name in names if name in found},
            frozenset(
                key
                for key in keys
                if any((*of_this, number, key) in shelves.parked for number in partitions)
            ),
        )

    async def halt(self, projection: str, partition: int, reason: str) -> None:
        """See ports.store."""
        halted = (await self._reach()).halted
        if reason:
            halted[self._app, projection, partition] = reason
        else:
            halted.pop((self._app, projection, partition), None)

    async def parked(self, projection: str, partition: int) -> Mapping[str, str]:
        """See ports.store."""
        of_this = (self._app, projection, partition)
        found = (await self._reach()).parked
        return {name[3]: parking for name, parking in found.items() if name[:3] == of_this}

    async def unpark(self, projection: str, partition: int, key: str, parking: str) -> None:
        """See ports.store."""
        parked = (await self._reach()).parked
        name = (self._app, projection, partition, key)
        if parked.get(name) == parking:
            del parked[name]

    async def reset(self, projection: str, checkpoints: Mapping[int, Checkpoint] | None) -> int:
        """See ports.store."""
        shelves = await self._reach()
        of_this = (self._app, projection)
        for number, checkpoint in (checkpoints or {}).items():
            current = shelves.checkpoints.get((*of_this, number))
            if current is not None and current.token >= checkpoint.token:
                raise FencedError(f"Somebody newer works on {projection}.")
        before = len(shelves.documents)
        for name in [name for name in shelves.positions if name[:2] == of_this]:
            shelves.documents.pop(f"{projection}:{name[2]}", None)
            del shelves.positions[name]
        tables: list[dict[Any, Any]] = [shelves.checkpoints, shelves.halted, shelves.parked]
        for table in tables:
            for gone in [name for name in table if name[:2] == of_this]:
                del table[gone]
        for number, checkpoint in (checkpoints or {}).items():
            shelves.checkpoints[*of_this, number] = checkpoint
        return before - len(shelves.documents)

    async def close(self) -> None:
        """See ports.store."""


class PiecemealStore(MemoryStore):
    """The same without transactions: documents one by one, each guarded, and the checkpoint last.

    So work stores that guard one document at a time, such as Elasticsearch; a batch that breaks
    off leaves some of its documents, whose positions say what they contain.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(
        applies_atomically=Promise.NEVER, durable=Promise.NEVER
    )

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store; half of it may stand where this raises or answers CONFLICT."""
        refused = self._refused(await self._reach(), batch)
        if refused is not None:
            return refused
        for write in batch.writes:
            shelves = await self._reach()
            if self._changed(shelves, batch, write):
                return Outcome.CONFLICT
            self._library.write()
            self._write(shelves, batch.projection, write)
        shelves = await self._reach()
        if not self._expected(shelves, batch):
            return Outcome.FENCED
        self._move(shelves, batch)
        return Outcome.APPLIED
