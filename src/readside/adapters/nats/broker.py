"""NATS JetStream as broker: one stream an app, one subject a partition and type."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec
from nats.js.api import (
    DiscardPolicy,
    RawStreamMsg,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from readside.adapters.nats.frames import (
    LARGEST,
    TOKEN,
    Offsets,
    frame_of,
    grouped,
    is_frame,
    records_in,
)
from readside.adapters.nats.link import FAILURES, PATIENCE, Link
from readside.adapters.nats.subscription import NatsSubscription
from readside.adapters.nats.wire import Reader, Writer, lines_of, watermark_text
from readside.core.errors import (
    BrokerUncertainError,
    DecodeError,
    RefusedError,
    SettingsError,
)
from readside.core.position import Position
from readside.core.record import Record, Watermark
from readside.ports.broker import BrokerTraits, Subscription
from readside.ports.traits import Promise

log = logging.getLogger("readside.nats")

#: Bytes that headers and subject may take beside a payload.
_OVERHEAD = 8 * 1024


#: What one message holds: a record, or a frame of them.
_Content = Record | list[Record]


class _Ack(msgspec.Struct):
    seq: int = 0
    error: dict[str, object] | None = None


class NatsBroker:
    """One JetStream stream, named ``readside_<app>``.

    Args:
        url: ``nats://user:password@host:port?replicas=3&max_age_days=30``; `replicas` counts the
            copies that a cluster keeps of the stream (1 where it is not given), `max_age_days` and
            `max_gigabytes` bound what it keeps (no bound where they are not given). They are used
            when the stream is created; change an existing one with `nats stream edit`.
            ``frames=on`` lets `publish` put many records into one message; it can be switched at
            any time, for both kinds are always read.
    """

    traits: ClassVar[BrokerTraits] = BrokerTraits(
        # JetStream syncs to disk every two minutes by default: an acknowledged record can be lost.
        remembers=Promise.CONFIGURED,
        # With frames=on, what is published together is a frame to other programs, not plain JSON.
        serves_others=Promise.CONFIGURED,
    )

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._options, self._frames = _options(parts.query)
        self._link = Link(urlunsplit(parts._replace(query="")))
        self._app = ""
        self._partitions = 0
        self._identity = ""
        self._sequence: int | None = None
        self._writer = Writer()

    @property
    def stream(self) -> str:
        """The stream's name."""
        return f"readside_{self._app}"

    async def open(self, app: str, partitions: int) -> None:
        """See ports.broker."""
        self._app, self._partitions = app, partitions
        self._sequence = None
        info = await self._stream_info(create=True)
        _check(info.config, self.stream)
        self._identity = str(info.created)

    async def _stream_info(self, *, create: bool) -> StreamInfo:
        client = await self._link.client()
        manager = client.jetstream(timeout=PATIENCE)
        try:
            try:
                return await manager.stream_info(self.stream)
            except NotFoundError:
                if not create:
                    raise
            return await manager.add_stream(self._config())
        except FAILURES as error:
            raise self._link.translate(error) from error

    def _config(self) -> StreamConfig:
        return StreamConfig(
            name=self.stream,
            description=f"Events of {self._app}, recorded by readside",
            subjects=[f"{self._app}.*.>"],
            retention=RetentionPolicy.LIMITS,
            # A full stream must refuse, so that the relay waits; it must never forget silently.
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            num_replicas=int(self._options["replicas"]),
            max_age=self._options["max_age_days"] * 86400,
            max_bytes=int(self._options["max_gigabytes"] * 1024**3) or -1,
            allow_direct=True,
        )

    async def check(self, largest: int) -> None:
        """See ports.broker."""
        client = await self._link.client()
        if client.max_payload < largest + _OVERHEAD:
            raise RefusedError(
                f"{self._link.server} takes messages of {client.max_payload} bytes, events may have {largest}.",
                mend=f"set max_payload: {largest + _OVERHEAD} in nats-server.conf, or lower max_payload of the app",
            )

    async def tails(self) -> Mapping[int, Position]:
        """See ports.broker."""
        client = await self._link.client()
        stream = client.jetstream(timeout=PATIENCE)
        found: dict[int, Position] = {}
        for partition in range(self._partitions):
            try:
                # Not `direct`: a replica which lags would name an older record.
                last = await stream.get_msg(
                    self.stream, subject=f"{self._app}.{partition}.>", direct=False
                )
            except NotFoundError:
                continue
            except FAILURES as error:
                raise self._link.translate(error) from error
            try:
                record = _last_of(partition, last)
            except DecodeError as error:
                # As if it held nothing: what it has is sent again, and changes nothing.
                log.warning("stream %s, partition %s: %s", self.stream, partition, error)
                continue
            found[partition] = record.position
        return found

    async def publish(self, records: Sequence[Record]) -> None:
        """See ports.broker.

        Only the last message of a batch is acknowledged; its sequence proves the others,
        for one relay publishes at a time. Where it does not, all are published again.
        """
        if not records:
            return
        client = await self._link.client()
        batch = self._grouped(records, client.max_payload)
        try:
            if self._sequence is None:
                self._sequence = await self._acknowledged(batch.pop(0))
            if not batch:
                return
            await client.send(map(self._lines, batch[:-1]))
            sequence = await self._acknowledged(batch[-1])
        except FAILURES as error:
            self._sequence = None
            raise self._link.translate(error) from error
        expected, self._sequence = self._sequence + len(batch), sequence
        if sequence != expected:
            self._sequence = None
            raise BrokerUncertainError(
                f"Stream {self.stream} is at {sequence}, not at {expected}.",
                mend="nothing: the batch is published again, and duplicates change nothing",
            )

    def _grouped(self, records: Sequence[Record], max_payload: int) -> list[_Content]:
        """What each message holds."""
        if not self._frames:
            return [*records]
        groups = grouped(records, min(LARGEST, max_payload - _OVERHEAD))
        return [group if len(group) > 1 else group[0] for group in groups]

    def _message(self, content: _Content) -> tuple[str, dict[str, str], bytes]:
        """Subject, headers and payload; a record that is alone is a plain message."""
        if isinstance(content, list):
            return f"{self._app}.{content[0].partition}.{TOKEN}", {}, frame_of(content)
        headers = self._writer.headers_of(content)
        return f"{self._app}.{content.partition}.{content.type}", headers, content.payload

    def _lines(self, content: _Content) -> tuple[str, str, bytes]:
        subject, headers, payload = self._message(content)
        return subject, lines_of(headers), payload

    async def _acknowledged(self, content: _Content) -> int:
        client = await self._link.client()
        subject, headers, payload = self._message(content)
        answer = await client.request(subject, payload, timeout=PATIENCE, headers=headers)
        ack = msgspec.json.decode(answer.data, type=_Ack)
        if ack.error is not None or ack.seq == 0:
            raise BrokerUncertainError(
                f"Stream {self.stream}: {ack.error and ack.error.get('description')}",
                mend="raise the limits of the stream, or let it have more disk; nothing is lost",
            )
        return ack.seq

    async def announce(self, watermarks: Sequence[Watermark]) -> None:
        """See ports.broker."""
        client = await self._link.client()
        try:
            for watermark in watermarks:
                await client.publish(
                    self._watermarks(watermark.partition), watermark_text(watermark)
                )
        except FAILURES as error:
            raise self._link.translate(error) from error

    def _watermarks(self, partition: int) -> str:
        return f"_readside.{self._app}.{partition}"

    async def subscribe(self, partition: int, offset: str) -> Subscription:
        """See ports.broker."""
        info = await self._stream_info(create=True)
        identity = str(info.created)
        log, _, sequence = offset.rpartition(":")
        after = int(sequence) if sequence and log == identity else 0
        if after > info.state.last_seq:
            after = 0  # the log came back older than the offset
        subscription = NatsSubscription(
            self._link, self.stream, f"{self._app}.{partition}.>", partition, identity
        )
        await subscription.start(after + 1, self._watermarks(partition))
        return subscription

    async def close(self) -> None:
        """See ports.broker."""
        await self._link.close()


def _last_of(partition: int, message: RawStreamMsg) -> Record:
    """The record of a message; of a frame, the last.

    Raises:
        DecodeError: it is not one of readside's.
    """
    subject, payload = message.subject or "", message.data or b""
    if is_frame(subject):
        return records_in(payload, partition, Offsets("", ""))[-1]
    return Reader(partition).record_of(subject, payload, message.headers)


def _options(query: str) -> tuple[dict[str, float], bool]:
    """What the stream is created with, and whether records travel in frames."""
    found, frames = {"replicas": 1.0, "max_age_days": 0.0, "max_gigabytes": 0.0}, "off"
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name == "frames":
            frames = values[-1]
            continue
        if name not in found:
            raise SettingsError(
                f"NATS has no option {name!r}.", mend=f"the options are {', '.join(found)}, frames"
            )
        try:
            found[name] = float(values[-1])
        except ValueError as error:
            raise SettingsError(
                f"{name}={values[-1]!r} is no number.", mend=f"nats://host:4222?{name}=3"
            ) from error
    if frames not in ("on", "off"):
        raise SettingsError(
            f"frames={frames!r} is neither on nor off.", mend="nats://host:4222?frames=on"
        )
    return found, frames == "on"


def _check(config: StreamConfig, stream: str) -> None:
    limited = any(
        limit is not None and limit > 0
        for limit in (config.max_msgs, config.max_bytes, config.max_msgs_per_subject)
    )
    if config.retention not in (RetentionPolicy.LIMITS, None) or (
        config.discard != DiscardPolicy.NEW and limited
    ):
        raise RefusedError(
            f"Stream {stream} exists and would drop records which nobody has read.",
            mend=f"nats stream edit {stream} --discard=new (retention must be limits)",
        )
