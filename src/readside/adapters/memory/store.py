"""Documents in memory: a server which can be wiped and taken back, and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from readside.core.errors import UnavailableError
from readside.core.folding import Batch, Stored
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

    def copy(self) -> Shelves:
        """A copy that shares only what never changes."""
        return Shelves(
            dict(self.documents),
            dict(self.positions),
            dict(self.checkpoints),
            dict(self.halted),
            dict(self.parked),
        )


class Library:
    """The server."""

    def __init__(self) -> None:
        self.running = True
        self.shelves = Shelves()

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
        if not self._library.running:
            raise UnavailableError("The store in memory is stopped.", mend="start it")
        return self._library.shelves

    async def open(self, app: str) -> None:
        """See ports.store."""
        self._app = app
        await self._reach()

    async def checkpoints(
        self, projection: str, partitions: Sequence[int]
    ) -> Mapping[int, Checkpoint]:
        """See ports.store."""
        found = (await self._reach()).checkpoints
        names = ((number, (self._app, projection, number)) for number in partitions)
        return {number: found[name] for number, name in names if name in found}

    async def load(self, projection: str, keys: Sequence[str]) -> list[Stored]:
        """See ports.store."""
        shelves = await self._reach()
        return [
            Stored(
                shelves.documents.get(f"{projection}:{key}"),
                shelves.positions.get((self._app, projection, key), ""),
            )
            for key in keys
        ]

    async def apply(self, batch: Batch) -> Outcome:
        """See ports.store."""
        shelves = await self._reach()
        app, projection = self._app, batch.projection
        name = (app, projection, batch.partition)
        if batch.checkpoint is not None and shelves.checkpoints.get(name) != batch.expected:
            return Outcome.FENCED
        for write in batch.writes:
            if shelves.positions.get((app, projection, write.key), "") != write.expected:
                return Outcome.CONFLICT
        for key, _, positions, document in batch.writes:
            shelves.positions[app, projection, key] = positions
            if document is None:
                shelves.documents.pop(f"{projection}:{key}", None)
            else:
                shelves.documents[f"{projection}:{key}"] = document
        for key, parking in batch.parked:
            shelves.parked[app, projection, batch.partition, key] = parking
        if batch.checkpoint is not None:
            shelves.checkpoints[name] = batch.checkpoint
        return Outcome.APPLIED

    async def read(
        self, projection: str, keys: Sequence[str], partitions: Sequence[int] = ()
    ) -> Reading:
        """See ports.store."""
        shelves = await self._reach()
        of_this = (self._app, projection)
        halted = [reason for name, reason in shelves.halted.items() if name[:2] == of_this]
        names = ((number, (*of_this, number)) for number in partitions)
        found = shelves.checkpoints
        return Reading(
            [shelves.documents.get(f"{projection}:{key}") for key in keys],
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
