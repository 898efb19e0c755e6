"""A model of the write store: its log, one replication slot, and readside's notes in its tables.

It does what PostgreSQL does where readside relies on it, or must not: a slot re-sends from its
confirmed position, a crash takes that position back to the last checkpoint, a restore takes
everything back, and log positions are then used a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from readside.core.chain import Head
from readside.core.errors import SchemaError, UnavailableError
from readside.core.event import Event, encode, key_of
from readside.core.leases import Unit
from readside.core.position import Position
from readside.ports.ledger import Hold, Progress, Shipped, Waiting

#: Seconds after which the server drops a reader of the slot that it does not hear of.
SENDER_TIMEOUT = 10.0
#: Seconds after which a statement gives up that waits for a lock.
LOCK_TIMEOUT = 15.0
#: Bytes of log that a transaction or one of its rows takes.
_BYTES = 16
_FIRST_LSN = 0x1000


class Recorded(NamedTuple):
    """One row of the outbox."""

    type: str
    key: str
    payload: bytes
    version: int = 1
    headers: bytes = b""
    id: str = ""

    @classmethod
    def of(cls, event: Event) -> Recorded:
        """The row that recording an event writes."""
        kind = type(event)
        return cls(kind.__event_type__, key_of(event), encode(event), kind.__event_version__)


class Transaction(NamedTuple):
    """A committed transaction: its commit record's position, the position after it, its rows."""

    lsn: int
    end: int
    committed_at: int
    rows: tuple[Recorded, ...]


@dataclass(frozen=True)
class Slot:
    """A replication slot: what its reader confirmed, and what of that a crash leaves."""

    confirmed: int
    durable: int
    #: Why it cannot be read any more, or empty.
    lost: str = ""


@dataclass(frozen=True)
class Notes:
    """The row about the capture."""

    epoch: int
    complete: bool
    system: str
    partitions: int
    origin: int
    confirmed: int
    #: Empty for the origin everywhere.
    heads: tuple[Head, ...] = ()
    shipped: Shipped | None = None
    timeline: int = 1
    resets: int = 0


class Leased(NamedTuple):
    """Who holds a unit, and until when."""

    owner: str | None
    token: int
    expires_at: float
    starts: int = 0
    attempting: Position | None = None
    tries: int = 0


class Asked(NamedTuple):
    """A projector's wish and the relay's answer, None while there is none."""

    after: Position
    reachable: bool | None


@dataclass
class Tables:
    """Everything that goes back in time with the database."""

    system: str
    timeline: int = 1
    #: Where the log left each earlier timeline.
    switches: dict[int, int] = field(default_factory=dict)
    flushed: int = _FIRST_LSN
    transactions: list[Transaction] = field(default_factory=list)
    slot: Slot | None = None
    notes: Notes | None = None
    projections: dict[str, None] = field(default_factory=dict)
    progress: dict[Unit, Progress] = field(default_factory=dict)
    rewinds: dict[Unit, Asked] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)
    leases: dict[Unit, Leased] = field(default_factory=dict)
    parked_documents: dict[tuple[Unit, str], Hold] = field(default_factory=dict)
    #: What each of them had when its parking began.
    parked_bases: dict[tuple[Unit, str], str] = field(default_factory=dict)
    parkings: int = 0
    parked_events: dict[tuple[Unit, str, Position], Waiting] = field(default_factory=dict)
    #: Those applied by a retry.
    retried: dict[tuple[Unit, str, Position], Waiting] = field(default_factory=dict)

    def copy(self) -> Tables:
        """A copy that shares only what never changes."""
        return replace(
            self,
            switches=dict(self.switches),
            transactions=list(self.transactions),
            projections=dict(self.projections),
            progress=dict(self.progress),
            rewinds=dict(self.rewinds),
            workers=dict(self.workers),
            leases=dict(self.leases),
            parked_documents=dict(self.parked_documents),
            parked_bases=dict(self.parked_bases),
            parked_events=dict(self.parked_events),
            retried=dict(self.retried),
        )

    def forget_notes(self, projection: str) -> None:
        """Delete the wishes of a projection, and its parked documents."""
        units = [unit for unit in self.rewinds if unit.projection == projection]
        for unit in units:
            del self.rewinds[unit]
        tables: list[dict[Any, Any]] = [
            self.parked_documents, self.parked_bases, self.parked_events, self.retried,
        ]  # fmt: skip
        for table in tables:
            for name in [name for name in table if name[0].projection == projection]:
                del table[name]


def loop_time() -> float:
    """Seconds of the running event loop, virtual where the loop is."""
    return asyncio.get_running_loop().time()


class Database:
    """One database with one app.

    Args:
        app: the app.
        partitions: how many partitions its events have.
        now: seconds of the server's clock.
    """

    def __init__(self, app: str, partitions: int, now: Callable[[], float] = loop_time) -> None:
        self.app = app
        self._passed = now
        self._stepped_back = 0.0
        self.running = True
        self.tables = Tables("system-1")
        #: Set and replaced whenever the log grows, so that readers of it wake up.
        self.grown = asyncio.Event()
        #: Grows whenever all connections end; what was not committed by then never is.
        self.outages = 0
        self._locks: dict[object, asyncio.Lock] = {}
        self._timelines = 1
        self._reader: object | None = None
        self._heard_at = 0.0
        self._recorded = 0
        self._partitions = partitions

    def now(self) -> float:
        """Seconds of the server's clock."""
        return self._passed() - self._stepped_back

    def step_back(self, seconds: float) -> None:
        """Let somebody set the clock back."""
        self._stepped_back += seconds

    async def reach(self) -> Tables:
        """What every statement does first: let others run, and fail where the server is away.

        Raises:
            UnavailableError: it is.
        """
        await asyncio.sleep(0)
        self.check()
        return self.tables

    def check(self) -> None:
        """Raise UnavailableError where the server is away."""
        if not self.running:
            raise UnavailableError("The database in memory is stopped.", mend="start it")

    def install(self) -> None:
        """Make the slot and the notes, as `readside init` does."""
        tables = self.tables
        if tables.notes is None:
            lsn = tables.flushed
            tables.slot = Slot(lsn, lsn)
            epoch = 1 + int(self.now())
            tables.notes = Notes(
                epoch, True, tables.system, self._partitions, lsn, lsn, timeline=tables.timeline
            )

    def notes(self, app: str) -> Notes:
        """The notes about the capture of an app.

        Raises:
            SchemaError: it was not installed here.
        """
        if app != self.app or self.tables.notes is None:
            raise SchemaError(f"App {app} is not installed.", mend="database.install()")
        return self.tables.notes

    def commit(self, *rows: Recorded | Event) -> Transaction:
        """Commit one transaction."""
        self.check()
        made = []
        for row in rows:
            self._recorded += 1
            recorded = Recorded.of(row) if isinstance(row, Event) else row
            made.append(recorded._replace(id=recorded.id or f"event-{self._recorded}"))
        lsn = self.tables.flushed + _BYTES * len(made)
        end = lsn + _BYTES
        transaction = Transaction(lsn, end, int(self.now() * 1e6), tuple(made))
        self.tables.transactions.append(transaction)
        self._grow(end)
        return transaction

    def advance(self, size: int = 4096) -> None:
        """Let others write `size` bytes of log that no outbox is in."""
        self.check()
        self._grow(self.tables.flushed + size)

    def _grow(self, flushed: int) -> None:
        self.tables.flushed = flushed
        grown, self.grown = self.grown, asyncio.Event()
        grown.set()

    def attach(self, reader: object) -> bool:
        """Make `reader` the slot's reader, unless another is."""
        if self.reader is not None and self.reader is not reader:
            return False
        self._reader = reader
        self.hear(reader)
        return True

    def hear(self, reader: object) -> None:
        """Note a sign of life of the slot's reader."""
        if reader is self._reader:
            self._heard_at = self._passed()

    def detach(self, reader: object) -> None:
        """Let go of the slot."""
        if reader is self._reader:
            self._reader = None

    @property
    def reader(self) -> object | None:
        """Who reads the slot; one that was silent for too long does not."""
        if self._reader is not None and self._passed() - self._heard_at > SENDER_TIMEOUT:
            self._reader = None
        return self._reader

    @property
    def retained(self) -> list[Transaction]:
        """The transactions whose log the server must keep for the slot."""
        slot = self.tables.slot
        return [t for t in self.tables.transactions if slot and t.lsn >= slot.durable]

    def checkpoint(self) -> None:
        """Bring to disk what the slot's reader has confirmed."""
        if self.tables.slot is not None:
            self.tables.slot = replace(self.tables.slot, durable=self.tables.slot.confirmed)

    def stop(self) -> None:
        """End every connection and refuse new ones."""
        self.running = False
        self.outages += 1
        self._reader = None
        self._grow(self.tables.flushed)

    def start(self) -> None:
        """Serve again."""
        self.running = True

    def crash(self) -> None:
        """Go down and come back: what a slot confirmed since the last checkpoint is forgotten."""
        self.stop()
        if self.tables.slot is not None:
            self.tables.slot = replace(self.tables.slot, confirmed=self.tables.slot.durable)
        self.start()

    def advance_slot(self) -> None:
        """Let somebody move the slot past everything."""
        self._reader = None
        if self.tables.slot is not None:
            self.tables.slot = Slot(self.tables.flushed, self.tables.flushed)
        self._grow(self.tables.flushed)

    def drop_slot(self) -> None:
        """Let somebody drop the slot."""
        self._reader = None
        self.tables.slot = None
        self._grow(self.tables.flushed)

    def lose_slot(self) -> None:
        """Let the slot exceed max_slot_wal_keep_size."""
        self._reader = None
        if self.tables.slot is not None:
            self.tables.slot = replace(self.tables.slot, lost="wal_removed")
        self._grow(self.tables.flushed)

    def snapshot(self) -> Tables:
        """A backup."""
        return self.tables.copy()

    def restore(self, backup: Tables, *, slot: bool = False) -> None:
        """Go back to a backup; one of a whole file system has the slot, others have not."""
        self.stop()
        self.tables = backup.copy()
        if not slot:
            self.tables.slot = None
        self.start()

    def promote(self, standby: Tables, *, slot: bool = True) -> None:
        """Fail over to a standby that has come as far as this backup."""
        self.restore(standby, slot=slot)
        tables = self.tables
        self._timelines += 1
        tables.switches[tables.timeline] = tables.flushed
        tables.timeline = self._timelines

    def move(self, backup: Tables) -> None:
        """Load a dump into another cluster, whose log is somewhere else."""
        self.restore(backup)
        self.tables.system += "+"

    @asynccontextmanager
    async def locked(self, *names: object) -> AsyncIterator[None]:
        """Hold locks as a transaction does, always taken in the same order.

        Raises:
            UnavailableError: they are not to be had in time.
        """
        async with AsyncExitStack() as held:
            for name in sorted(set(names), key=repr):
                lock = self._locks.setdefault(name, asyncio.Lock())
                try:
                    async with asyncio.timeout(LOCK_TIMEOUT):
                        await lock.acquire()
                except TimeoutError:
                    raise UnavailableError("A lock is not to be had.") from None
                held.callback(lock.release)
            yield
