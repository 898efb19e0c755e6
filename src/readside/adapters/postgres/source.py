"""The outbox as a source: its rows in commit order, by logical replication."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar

from readside.adapters.postgres.handover import MARK, is_cut
from readside.adapters.postgres.messages import NEVER, Admission, admission
from readside.adapters.postgres.names import COLUMNS, Names
from readside.adapters.postgres.stream import ReplicationStream
from readside.core import pgoutput
from readside.core.errors import DecodeError, UnavailableError
from readside.core.message import prefix_of, unpack
from readside.core.position import Position, format_lsn
from readside.core.record import Captured
from readside.ports.source import Chunk, SourceTraits
from readside.ports.traits import Promise

log = logging.getLogger("readside.relay")

_new = tuple.__new__

#: Events in one chunk; a large transaction comes in several. What is there already is taken together,
#: for every chunk costs, and so does every batch that is made of it.
_ENOUGH = 1000
#: Bytes after which nothing more is taken together, so that memory stays bounded whatever events weigh.
_ENOUGH_BYTES = 2 * 1024 * 1024
#: Seconds between unasked status messages: well below wal_sender_timeout.
_STATUS_EVERY = 2.0
#: The columns as they come since PostgreSQL 15, which sends those that were asked for and no others.
_USUAL = ("id", "aggregateid", "type", "payload", "version", "headers")
#: Where the data begins in a frame that has some.
_DATA_AT = 25
#: Where the prefix begins in the frame of a message: after the frame's head, kind, flags and place.
_PREFIX_AT = 35
#: The prefixes of a frame's message that mean something, up to their end.
_MARK = MARK.encode() + b"\0"


class OutboxReader:
    """Turns replication frames into captured events. No I/O: frames in, events out.

    Attributes:
        settled: everything that committed before this LSN has been handed out.
        mark: what a message says by which the rest is for another capture. Whoever reads on
            has to find out whether that is true, and to set it to None if not: any role can write one.
        admission: which messages are events, as far as known.
        asks: whether the next frame is a message which the admission does not decide. Whoever reads on
            has to ask for it anew, and to say so by `learn`.
        skipped: messages with the prefix of our events which are none, and why; for who reads on to say.
    """

    def __init__(self, epoch: int, settled: int, app: str = "") -> None:
        self.settled = settled
        self.mark: bytes | None = None
        self._marked = app.encode() + b" "
        self._prefix = prefix_of(app).encode() + b"\0"
        self.admission: Admission | None = None
        self.asks = False
        self.skipped: list[str] = []
        #: Whether the admission was asked for after all frames at hand had come.
        self.sure = False
        self.wants_reply = False
        self._epoch = epoch
        #: For each table, how to take what matters out of a row's columns; none of it is NULL but the headers.
        self._pick: dict[int, Callable[[list[Any]], tuple[Any, ...]]] = {}
        #: Tables with the usual columns; partitions are told as well, though rows come as their parent's.
        self._sixes: set[int] = set()
        #: How a row begins of the table of the latest row, if its columns are the usual ones.
        self._usual = b"?"
        self._open = False
        self._lsn = 0
        self._ordinal = 0
        self._committed_at = 0

    def take(self, frames: deque[bytes], limit: int) -> list[Captured]:
        """Consume frames from the left until `limit` events are made."""
        events: list[Captured] = []
        while frames and len(events) < limit and self.mark is None:
            frame = frames.popleft()
            if frame.startswith(self._usual, _DATA_AT):
                frames.appendleft(frame)
                self._usual_rows(frames, events, limit)
            elif frame[0] == 0x77:  # noqa: PLR2004 - w: data, the hot path
                kind = frame[_DATA_AT]
                if kind == 0x49:  # noqa: PLR2004 - I: a new row
                    events.append(self._row(frame))
                elif kind == 0x4D:  # noqa: PLR2004 - M: a message
                    if not self._message(frame, events):
                        frames.appendleft(frame)
                        break
                else:
                    self._other(pgoutput.decode(frame[_DATA_AT:]))
            else:
                self._keepalive(frame)
        return events

    def _usual_rows(self, frames: deque[bytes], events: list[Captured], limit: int) -> None:
        """Take the rows at hand which look as usual. The hot path: without a call or an attribute too many."""
        usual, six, take, keep = self._usual, pgoutput.six, frames.popleft, events.append
        epoch, lsn, ordinal, committed_at = (
            self._epoch,
            self._lsn,
            self._ordinal,
            self._committed_at,
        )
        for _ in range(min(limit - len(events), len(frames))):
            frame = take()
            if not frame.startswith(usual, _DATA_AT):
                frames.appendleft(frame)
                break
            id_, key, type_, payload, version, headers = six(frame, _DATA_AT)
            ordinal += 1
            # tuple's own constructor: that of a NamedTuple is a Python function around it.
            keep(
                _new(
                    Captured,
                    (
                        _new(Position, (epoch, lsn, ordinal)),
                        id_.decode(),
                        type_.decode(),
                        key.decode(),
                        1 if version == b"1" else int(version),
                        payload,
                        committed_at,
                        headers,
                    ),
                )
            )
        self._ordinal = ordinal

    def _row(self, frame: bytes) -> Captured:
        oid, values = pgoutput.inserted(frame, _DATA_AT)
        id_, type_, key, version, payload, headers = self._pick[oid](values)
        if oid in self._sixes:
            self._usual = pgoutput.head_of_six(oid)
        self._ordinal += 1
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

    def learn(self, admission: Admission) -> None:
        """The answer: which messages are events, asked for after all frames at hand had come."""
        self.admission, self.sure, self.asks = admission, True, False

    def _message(self, frame: bytes, events: list[Captured]) -> bool:
        """Take a message, an event or not; False if that has to be asked for first."""
        if not frame.startswith(self._prefix, _PREFIX_AT):
            if frame.startswith(_MARK, _PREFIX_AT):
                self._other(pgoutput.decode(frame[_DATA_AT:]))
            return True
        message = pgoutput.decode(frame[_DATA_AT:])
        if not isinstance(message, pgoutput.Message):
            raise DecodeError(f"{message!r} is no message.")
        if not message.transactional:
            self._skip(message, "it is not of a transaction")
            return True
        known = self.admission
        if known is None or (known.from_lsn == NEVER and not self.sure):
            self.asks = True
            return False
        if self._lsn < known.from_lsn:
            self._skip(message, "messages were not the app's outbox then")
            return True
        try:
            event = self._captured(message.content, known.max_payload)
        except DecodeError as error:
            self._skip(message, error.detail)
            return True
        if event is None:
            self.asks = True
            return False
        events.append(event)
        return True

    def _captured(self, content: bytes, largest: int) -> Captured | None:
        """The event of a message; None if it is larger than what was known to be allowed."""
        found = unpack(content)
        payload = bytes(found.payload)
        if len(payload) > largest:
            if not self.sure:
                return None
            payload = _left_out(len(payload), largest)
        headers = bytes(found.headers)
        self._ordinal += 1
        return _new(
            Captured,
            (
                _new(Position, (self._epoch, self._lsn, self._ordinal)),
                found.id,
                found.type,
                found.key,
                found.version,
                payload,
                self._committed_at,
                b"" if headers == b"null" else headers,
            ),
        )

    def _skip(self, message: pgoutput.Message, reason: str) -> None:
        self.skipped.append(
            f"at {format_lsn(message.lsn)} ({len(message.content)} bytes): {reason}"
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
                self._usual = b"?"
                (self._sixes.add if columns == _USUAL else self._sixes.discard)(oid)
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


def _left_out(size: int, largest: int) -> bytes:
    """In place of a payload that no broker would take: JSON, but no event, so that its document is parked."""
    return f'"readside: a payload of {size} bytes was left out, {largest} are allowed"'.encode()


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
            self._reader.sure = False
        if self._reader.asks:
            self._reader.learn(await admission(self._dsn, self._names.app))
        events = self._take(self._stream)
        mark = self._reader.mark
        if mark is not None and not await self._ends(mark):
            self._reader.mark = None
        if self._reader.wants_reply or self._clock() - self._said_at > _STATUS_EVERY:
            self._say()
        return Chunk(events, self._reader.settled)

    def _take(self, stream: ReplicationStream) -> list[Captured]:
        reader = self._reader
        try:
            events = reader.take(self._frames, _ENOUGH)
            size = 0
            while 0 < len(events) < _ENOUGH and reader.mark is None and not reader.asks:
                if not self._frames:
                    size += stream.handed_out
                    if size > _ENOUGH_BYTES:
                        break
                    self._frames, reader.sure = stream.more(), False
                    if not self._frames:
                        break
                events += reader.take(self._frames, _ENOUGH - len(events))
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise DecodeError(
                f"The replication stream is not what it should be: {error!r}"
            ) from error
        if reader.skipped:
            log.error(
                "%s messages in the log look like events of app %s and are none: passed over. The first: %s",
                len(reader.skipped), self._names.app, reader.skipped[0],
            )  # fmt: skip
            reader.skipped.clear()
        return events

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
