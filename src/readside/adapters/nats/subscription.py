"""Reading one partition of the stream, with credit: never more in memory than was asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import deque
from contextlib import suppress
from itertools import accumulate
from operator import attrgetter

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscriptionHandle
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from readside.adapters.nats.express import Express
from readside.adapters.nats.frames import ENDING, Offsets, records_in
from readside.adapters.nats.link import FAILURES, Link
from readside.adapters.nats.wire import Reader, headers_in, watermark_of
from readside.core.batching import Limits
from readside.core.errors import DecodeError, UnavailableError
from readside.core.record import Record, Watermark
from readside.ports.broker import Delivery

log = logging.getLogger("readside.nats")

#: Messages asked for at once; half of them again when half have come.
_CREDIT = 1024
#: Bytes asked for at once, and again when no more than half of them wait to be read.
_CREDIT_BYTES = 512 * 1024
#: Bytes asked for where one message has to come, however large: more than NATS can hold, and not
#: left out, so that the server says what remained, as for every other pull.
_WIDE_BYTES = 2**31 - 1
_EXPIRES_NS = 20_000_000_000
_HEARTBEAT_NS = 1_000_000_000
#: Seconds without even a heartbeat after which no pull counts as alive, and another is sent; as many
#: again without an answer, and the consumer counts as gone.
_SILENCE = 2.0
_TOO_LARGE = "Message Size Exceeds"
_OLD_REPLY_TOKENS = 9
_PAYLOAD = attrgetter("payload")


class NatsSubscription:
    """A pull consumer that nobody else knows: no acknowledgements, no state on the server.

    Source of the algorithm: NATS ADR-37, "consume" with overlapping pulls.

    The server ends a pull with a word that says how much of it remained, but for one: a pull whose
    bytes are used up exactly ends without a word, whatever remains of its count. So the bytes are
    counted here as the server counts them. While any pull lives, bytes are outstanding; when none
    are, no pull lives, and what remains of the count is nobody's. A pull that lives is never silent
    for longer than a heartbeat: where the two counts differ (an import between accounts may rewrite
    subjects), silence tells the same, later. What comes after a pull was given up wrongly only
    makes the next one earlier: at most one more pull for each silence, and each expires.
    """

    def __init__(
        self, link: Link, stream: str, subject: str, partition: int, identity: str
    ) -> None:
        self._link = link
        self._stream = stream
        self._subject = subject
        self._partition = partition
        self._identity = identity
        self._reader = Reader(partition)
        #: Subject, reply, payload and headers, as they came.
        self._messages: deque[tuple[bytes, bytes, bytes, bytes]] = deque()
        #: Bytes of their payloads.
        self._waiting = 0
        #: The records of a frame that did not fit into what was read.
        self._rest: list[Record] = []
        self._watermark: Watermark | None = None
        self._arrived = asyncio.Event()
        #: Messages and bytes that pulls still ask for, at least as many as the server will send.
        self._outstanding = 0
        self._outstanding_bytes = 0
        #: Whether the next message is larger than what a pull asks for.
        self._wide = False
        self._failure = ""
        self._heard_at = time.monotonic()
        #: When another pull was sent because of this silence.
        self._doubted_at: float | None = None
        self._client: Express | None = None
        self._handles: list[NatsSubscriptionHandle] = []
        self._consumer = ""
        self._inbox = ""

    async def start(self, first_sequence: int, watermarks: str) -> None:
        """Begin at a sequence of the stream."""
        try:
            await self._start(first_sequence, watermarks)
        except BaseException:
            await self.close()  # nobody else can: it was never handed out
            raise

    async def _start(self, first_sequence: int, watermarks: str) -> None:
        client = self._client = await self._link.client()
        try:
            info = await client.jetstream().add_consumer(
                self._stream,
                ConsumerConfig(
                    filter_subject=self._subject,
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=max(1, first_sequence),
                    ack_policy=AckPolicy.NONE,
                    mem_storage=True,
                    num_replicas=1,
                    inactive_threshold=60.0,
                ),
            )
            self._consumer = info.name
            self._inbox = client.new_inbox()
            inbox = await client.subscribe(self._inbox, cb=self._on_word)
            client.divert(inbox, self._on_message)
            self._handles.append(inbox)
            self._handles.append(await client.subscribe(watermarks, cb=self._on_watermark))
            await self._pull()
        except FAILURES as error:
            raise self._link.translate(error) from error

    async def read(self, limits: Limits, patience: float) -> Delivery:
        """See ports.broker."""
        if not (self._messages or self._rest or self._watermark) and patience > 0:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._arrived.wait()
        records = self._take(limits)
        if not records:
            # Not only after a wait in vain: watermarks end every wait, and come from the relay.
            self._check_alive()
            if self._failure:
                raise UnavailableError(f"{self._link.server}: {self._failure}")
        await self._pull()
        watermark = None
        if not (self._messages or self._rest):
            # It speaks of everything before it, so it waits until that was read.
            watermark, self._watermark = self._watermark, None
        return Delivery(records, watermark)

    def _take(self, limits: Limits) -> list[Record]:
        records: list[Record] = []
        size = 0
        messages, record_of, stem = self._messages, self._reader.record_of, f"{self._identity}:"
        if self._rest:
            size = self._take_rest(records, limits.records, limits.size)
        while messages and len(records) < limits.records and size < limits.size:
            subject, reply, payload, headers = messages.popleft()
            self._waiting -= len(payload)
            sequence = _stream_sequence(reply.decode())
            try:
                if subject.endswith(ENDING):
                    offsets = Offsets(f"{stem}{int(sequence) - 1}", stem + sequence)
                    self._rest = records_in(payload, self._partition, offsets)
                    room = limits.records - len(records), limits.size - size
                    size += self._take_rest(records, *room)
                    continue
                offset = stem + sequence
                records.append(record_of(subject.decode(), payload, headers_in(headers), offset))
                size += len(payload)
            except (DecodeError, UnicodeDecodeError) as error:
                # Somebody else publishes here. If it was one of ours, the chain will show a hole.
                log.warning("passed over on %s: %s", subject.decode(errors="replace"), error)
        return records

    def _take_rest(self, records: list[Record], count: int, size: int) -> int:
        """Move what fits of a frame, at least one record; returns the bytes of payload."""
        rest = self._rest
        sizes = list(accumulate(map(len, map(_PAYLOAD, rest[:count]))))
        fits = min(bisect_left(sizes, size) + 1, len(sizes))
        records += rest[:fits]
        self._rest = rest[fits:]
        return sizes[fits - 1]

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._client is None or not self._client.is_connected:
            self._failure = "the connection is lost"
        elif now - self._heard_at <= _SILENCE:
            return
        elif self._doubted_at is None:
            # Not a failure yet: a process that slept has heard nothing either, and now it listens.
            self._doubted_at = now
            self._outstanding = self._outstanding_bytes = 0
        elif now - self._doubted_at > _SILENCE:
            self._failure = "the consumer went silent"

    async def _pull(self) -> None:
        if self._outstanding + len(self._messages) > _CREDIT // 2 or self._failure:
            return
        if self._client is None or self._waiting > _CREDIT_BYTES // 2:
            return
        batch, most = _CREDIT - self._outstanding - len(self._messages), _CREDIT_BYTES
        if self._wide:
            batch, most, self._wide = 1, _WIDE_BYTES, False
        request = {
            "batch": batch,
            "max_bytes": most,
            "expires": _EXPIRES_NS,
            "idle_heartbeat": _HEARTBEAT_NS,
        }
        if self._outstanding == 0 and self._doubted_at is None:
            self._heard_at = time.monotonic()  # until now the server had nothing to say
        self._outstanding += batch
        self._outstanding_bytes += most
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        try:
            await self._client.publish(subject, msgspec.json.encode(request), reply=self._inbox)
        except FAILURES as error:
            self._failure = str(error)

    def _on_message(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        # In one piece, and the same as below: this is done for every message.
        self._heard_at = time.monotonic()
        self._doubted_at = None
        size = len(payload)
        self._waiting += size
        self._outstanding -= 1
        self._outstanding_bytes -= size + len(subject) + len(reply) + len(headers)
        if self._outstanding_bytes <= 0 or self._outstanding < 0:
            self._spend(0, 0)
        self._messages.append((subject, reply, payload, headers))
        if len(self._messages) == 1:
            self._arrived.set()

    async def _on_word(self, message: Msg) -> None:
        """Hear what the server says of the pull."""
        self._heard_at = time.monotonic()
        self._doubted_at = None
        headers = message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "")
        undelivered = headers.get("Nats-Pending-Messages")
        if undelivered is not None:
            unused = int(headers.get("Nats-Pending-Bytes", 0))
            self._spend(int(undelivered), unused)
            # Of a pull that was partly used another of full size may take it.
            self._wide |= description.startswith(_TOO_LARGE) and unused >= _CREDIT_BYTES
            self._arrived.set()
        elif status and status != "100":
            self._failure = description or status
            self._arrived.set()

    def _spend(self, messages: int, size: int) -> None:
        """Count what will not come any more of the pulls; without bytes none of them lives."""
        self._outstanding = max(0, self._outstanding - messages)
        self._outstanding_bytes -= size
        if self._outstanding_bytes <= 0:
            self._outstanding = self._outstanding_bytes = 0

    async def _on_watermark(self, message: Msg) -> None:
        self._watermark = watermark_of(self._partition, message.data)
        self._arrived.set()

    async def close(self) -> None:
        """See ports.broker."""
        client, self._client = self._client, None
        if client is None or not client.is_connected:
            return
        try:
            async with asyncio.timeout(1):
                for handle in self._handles:
                    await handle.unsubscribe()
                if self._consumer:
                    await client.jetstream().delete_consumer(self._stream, self._consumer)
        except FAILURES:
            return  # the server forgets an idle consumer after a minute


def _stream_sequence(reply: str) -> str:
    tokens = reply.split(".")
    return tokens[5] if len(tokens) == _OLD_REPLY_TOKENS else tokens[7]
