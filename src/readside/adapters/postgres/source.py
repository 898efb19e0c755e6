"""The outbox as a source: its rows in commit order, by logical replication."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar

from readside.adapters.postgres.handover import MARK, is_cut
from readside.adapters.postgres.names import COLUMNS, Names
from readside.adapters.postgres.stream import ReplicationStream
from readside.core import pgoutput
from readside.core.errors import DecodeError, UnavailableError
from readside.core.position import Position
from readside.core.record import Captured
from readside.ports.source import Chunk, SourceTraits
from readside.ports.traits import Promise

_new = tuple.__new__

#: Events in one chunk; a large transaction comes in several. What is there already is taken together,
#: for every chunk costs, and so does every batch that is made of it.
_ENOUGH = 1000
#: Seconds between unasked status messages: well below wal_sender_timeout.
_STATUS_EVERY = 2.0


class OutboxReader:
    """Turns replication frames into captured events. No I/O: frames in, events out.

    Attributes:
        settled: everything that committed before this LSN has been handed out.
        mark: what a message says by which the rest is for another capture. Whoever reads on
            has to find out whether that is true, and to set it to None if not: any role can write one.
    """

    def __init__(self, epoch: int, settled: int, app: str = "") -> None:
        self.settled = settled
        self.mark: bytes | None = None
        self._marked = app.encode() + b" "
        self.wants_reply = False
        self._epoch = epoch
        #: For each table, how to take what matters out of a row's columns; none of it is NULL but the headers.
        self._pick: dict[int, Callable[[list[Any]], tuple[Any, ...]]] = {}
        self._open = False
        self._lsn = 0
        self._ordinal = 0
        self._committed_at = 0

    def take(self, frames: deque[bytes], limit: int) -> list[Captured]:
        """Consume frames from the left until `limit` events are made."""
        events: list[Captured] = []
        while frames and len(events) < limit and self.mark is None:
            frame = frames.popleft()
            if frame[0] == 0x77:  # noqa: PLR2004 - w: data, the hot path
                if frame[25] == 0x49:  # noqa: PLR2004 - I: a new row
                    events.append(self._row(frame))
                else:
                    self._other(pgoutput.decode(frame[25:]))
            else:
                self._keepalive(frame)
        return events

    def _row(self, frame: bytes) -> Captured:
        oid, values = pgoutput.inserted(frame, 25)
        id_, type_, key, version, payload, headers = self._pick[oid](values)
        self._ordinal += 1
        # tuple's own constructor: that of a NamedTuple is a Python function around it.
        return _new(
            Captured,
            (
                _new(Position, (self._epoch, self._lsn, self._ordinal)),
                id_.decode(),
                type_.decode(),
                key.decode(),
                1 if version == b"1" else int(version),
                payload,
                self._committed_at,
                headers or b"",
            ),
        )

    def _other(self, message: pgoutput.Decoded) -> None:
        match message:
            case pgoutput.Begin(commit_lsn, committed_at, _):
                self._open = True
                self._lsn, self._ordinal, self._committed_at = commit_lsn, 0, committed_at
            case pgoutput.Commit(_, end_lsn, _):
                self._open = False
                self.settled = max(self.settled, end_lsn)
            case pgoutput.Relation(oid=oid, name=name, columns=columns):
                self._pick[oid] = _picker(name, columns)
            case pgoutput.Message(prefix=prefix, content=content):
                if prefix == MARK and content.startswith(self._marked):
                    self.mark = content
            case _:
                pass

    def _keepalive(self, frame: bytes) -> None:
        keepalive = pgoutput.unwrap(frame)
        if isinstance(keepalive, pgoutput.Keepalive):
            self.wants_reply |= keepalive.reply
            if not self._open:
                self.settled = max(self.settled, keepalive.lsn)


def _picker(table: str, columns: tuple[str, ...]) -> Callable[[list[Any]], tuple[Any, ...]]:
    try:
        return itemgetter(*(columns.index(column) for column in COLUMNS))
    except ValueError as error:
        raise DecodeError(f"readside.{table} lacks a column: {error}") from error


class SlotSource:
    """The committed events of one app, read from its replication slot."""

    traits: ClassVar[SourceTraits] = SourceTraits(keeps_commit_order=Promise.KEPT)

    def __init__(
        self, dsn: str, app: str, epoch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = Names(app)
        self._dsn = dsn
        self._epoch = epoch
        self._clock = clock
        self._stream: ReplicationStream | None = None
        self._frames: deque[bytes] = deque()
        self._reader = OutboxReader(epoch, 0)
        self._confirmed = 0
        self._said_at = 0.0

    @property
    def handed_over(self) -> bool:
        """Whether everything was handed out that is for this capture."""
        return self._reader.mark is not None

    async def start(self, lsn: int) -> None:
        """See ports.source."""
        await self.close()
        self._reader = OutboxReader(self._epoch, lsn, self._names.app)
        self._frames = deque()
        self._confirmed = lsn
        stream = ReplicationStream(self._dsn, self._names.slot, self._names.publication)
        self._stream = stream  # before it starts: whoever is interrupted here still closes it
        await stream.start(lsn)
        self._said_at = self._clock()

    async def read(self, patience: float) -> Chunk:
        """See ports.source."""
        if self._stream is None:
            raise RuntimeError("start() first")
        if self.handed_over:
            raise UnavailableError(
                f"The outbox of {self._names.app} was handed over to polling.",
                mend="nothing: the relay starts again",
            )
        if not self._frames:
            self._frames = await self._stream.frames(patience)
        try:
            events = self._reader.take(self._frames, _ENOUGH)
            while 0 < len(events) < _ENOUGH and self._reader.mark is None:
                self._frames = self._frames or self._stream.more()
                if not self._frames:
                    break
                events += self._reader.take(self._frames, _ENOUGH - len(events))
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise DecodeError(
                f"The replication stream is not what it should be: {error!r}"
            ) from error
        mark = self._reader.mark
        if mark is not None and not await self._ends(mark):
            self._reader.mark = None
        if self._reader.wants_reply or self._clock() - self._said_at > _STATUS_EVERY:
            self._say()
        return Chunk(events, self._reader.settled)

    async def _ends(self, mark: bytes) -> bool:
        """Whether a mark is true."""
        try:
            text = mark.decode()
        except UnicodeDecodeError:
            return False
        return "\0" not in text and await is_cut(self._dsn, self._names, text)

    async def settle(self, lsn: int) -> None:
        """See ports.source."""
        self._confirmed = max(self._confirmed, lsn)
        self._say()

    def retains(self, lsn: int) -> int | None:
        """See ports.source."""
        return lsn

    def _say(self) -> None:
        if self._stream is not None:
            self._stream.confirm(self._confirmed)
        self._reader.wants_reply = False
        self._said_at = self._clock()

    async def close(self) -> None:
        """See ports.source."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()
